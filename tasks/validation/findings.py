"""Findings: the outcome of each rule over all batches, as JSON and as text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tasks.contracts.validation import ExpectationOutcome, ExpectationResult
from tasks.validation.rules import Rule

OUTCOMES: tuple[ExpectationOutcome, ...] = ("failed", "warned", "passed", "skipped")
"""In the order in which they are shown."""

SAMPLE_SIZE = 3


@dataclass
class Finding:
    """Whether a rule holds on all batches that were added.

    Attributes:
        rule: The rule.
        note: Why the rule was skipped, or which data it left out.
        unexpected: Number of values that break the rule; None if they can't be counted.
        sample: Some of these values, as text.
        places: Place of each value in the sample: source and row, or a date with its figures.
    """

    rule: Rule
    note: str = ""
    unexpected: int | None = None
    sample: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    _holds: bool | None = None

    @property
    def outcome(self) -> ExpectationOutcome:
        """Skipped until a batch was added; a broken rule fails or warns by its severity."""
        if self._holds is None:
            return "skipped"
        if self._holds:
            return "passed"
        return "failed" if self.rule.severity == "fail" else "warned"

    def add(
        self,
        holds: bool,
        unexpected: int | None,
        sample: Iterable[Any] = (),
        places: Iterable[str] = (),
    ) -> None:
        """Add the result for one batch.

        Args:
            holds: Whether the batch meets the rule.
            unexpected: Number of values that break it, if they can be counted.
            sample: Some of these values.
            places: Place of each value in the sample; empty if unknown.
        """
        self._holds = holds and self._holds is not False
        if unexpected is not None:
            self.unexpected = (self.unexpected or 0) + unexpected
        self.sample = [*self.sample, *map(shown, sample)][:SAMPLE_SIZE]
        self.places = [*self.places, *places][:SAMPLE_SIZE]

    def result(self) -> ExpectationResult:
        """As it is stored."""
        is_broken = self.outcome in ("failed", "warned")
        return ExpectationResult(
            name=self.rule.name,
            column=self.rule.column,
            expectation=self.rule.text,
            severity=self.rule.severity,
            outcome=self.outcome,
            unexpected=self.unexpected,
            sample=tuple(self.sample),
            places=tuple(self.places),
            remedy=self.rule.remedy if is_broken else "",
            note=self.note or ("nothing to examine" if self.outcome == "skipped" else ""),
            success=not is_broken,
        )

    def in_words(self) -> str:
        """As an item of a Markdown list."""
        result = self.result()
        about = f"- **{self.rule.column}** {self.rule.text}"
        if result.success:
            note = f" ({result.note})" if result.note else ""
            return f"{about}: {self.outcome}{note}."
        if self.places:
            pairs = zip(self.sample, self.places, strict=True)
            sample = ", ".join(f"{value} ({place})" for value, place in pairs)
            verb = "is" if self.unexpected == 1 else "are"
            return f"{about}; {self.unexpected} {verb} not, for example {sample}. {result.remedy}"
        found = ", ".join(self.sample) or "nothing to examine"
        return f"{about}; found: {found}. {result.remedy}"


def with_outcome(findings: Sequence[Finding], outcome: ExpectationOutcome) -> list[Finding]:
    """The findings that ended so."""
    return [finding for finding in findings if finding.outcome == outcome]


def shown(value: Any) -> str:
    """A value as text."""
    if value is None or value != value:  # NaN differs from itself
        return "missing"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
