"""What became of the rules: findings, collected piece by piece and said in words."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from tasks.validation.rules import Rule, Severity, shown

Outcome = Literal["failed", "warned", "passed", "skipped"]
OUTCOMES: tuple[Outcome, ...] = ("failed", "warned", "passed", "skipped")
"""In the order in which they are shown."""

SAMPLE_SIZE = 3


class Result(NamedTuple):
    """What one examination says of one rule.

    Attributes:
        success: Whether it holds.
        unexpected: Number of values that are not as expected; None where nothing can be counted.
        sample: Some of these values.
        rows: Their positions in the table that was examined.
    """

    success: bool
    unexpected: int | None
    sample: list[Any]
    rows: list[int]


@dataclass(frozen=True)
class Finding:
    """Whether a rule holds.

    Attributes:
        name: The rule's name.
        column: What the rule is about.
        expectation: What was expected of it.
        severity: What follows when it is not so.
        outcome: What became of it; "skipped" where nothing could be decided.
        unexpected: Number of values that are not as expected; None where nothing can be counted.
        sample: Some of them, as text.
        places: Where each of the sample is: source and row, or a date with its figures.
        remedy: What to do; empty if there is nothing to do.
        note: Why it was skipped, or what was left out.
    """

    name: str
    column: str
    expectation: str
    severity: Severity
    outcome: Outcome
    unexpected: int | None
    sample: list[str]
    places: list[str]
    remedy: str
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it is stored; `success` is false for what failed and for what only warns."""
        return {**asdict(self), "success": self.outcome in ("passed", "skipped")}

    def in_words(self) -> str:
        """As an item of a Markdown list."""
        about = f"- **{self.column}** {self.expectation}"
        if self.outcome in ("passed", "skipped"):
            return f"{about}: {self.outcome}{f' ({self.note})' if self.note else ''}."
        if self.places:
            pairs = zip(self.sample, self.places, strict=True)
            sample = ", ".join(f"{value} ({place})" for value, place in pairs)
            verb = "is" if self.unexpected == 1 else "are"
            return f"{about}; {self.unexpected} {verb} not, for example {sample}. {self.remedy}"
        found = ", ".join(self.sample) or "nothing to examine"
        return f"{about}; found: {found}. {self.remedy}"


@dataclass
class Tally:
    """A rule's results, added up.

    Attributes:
        rule: The rule.
        n_results: How many were added.
        note: What was left out, or why all was.
    """

    rule: Rule
    n_results: int = 0
    note: str = ""
    _success: bool = True
    _unexpected: int | None = None
    _sample: list[str] = field(default_factory=list)
    _places: list[str] = field(default_factory=list)

    def add(self, result: Result, places: Sequence[str] = ()) -> None:
        """Add a result.

        Args:
            result: What was found.
            places: Where each of its sample is.
        """
        self.n_results += 1
        self._success &= result.success
        if result.unexpected is not None:
            self._unexpected = (self._unexpected or 0) + result.unexpected
        self._sample += [shown(value) for value in result.sample]
        self._places += places
        del self._sample[SAMPLE_SIZE:], self._places[SAMPLE_SIZE:]

    def finding(self) -> Finding:
        """What they say together; without any result the rule was skipped."""
        rule = self.rule
        outcome: Outcome = "passed"
        if not self.n_results:
            outcome = "skipped"
        elif not self._success:
            outcome = "failed" if rule.severity == "fail" else "warned"
        return Finding(
            name=rule.name,
            column=rule.column,
            expectation=rule.text,
            severity=rule.severity,
            outcome=outcome,
            unexpected=self._unexpected,
            sample=list(self._sample),
            places=list(self._places),
            remedy=rule.remedy if outcome in ("failed", "warned") else "",
            note=self.note or ("" if self.n_results else "nothing to examine"),
        )


def with_outcome(findings: Iterable[Finding], outcome: Outcome) -> list[Finding]:
    """The findings that ended so."""
    return [finding for finding in findings if finding.outcome == outcome]
