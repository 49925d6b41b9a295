"""What new rows and the days they make must be like, as plain data.

The rules for rows come from `recsys_core.data.schema`, from which cleaning is made, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from recsys_core.data.schema import LATEST, Column, Table

Severity = Literal["warn", "fail"]

_LARGEST_FLOAT32 = 3.4028234e38
_CORRECT = (
    "Correct the file, or remove it: rows of a file that was never valid leave the lake again."
)
_REBUILD = "The lake was written by something else; restore it, or ingest into an empty lake."
_LOOK = (
    "Look at that day's export. If it is right, change validation.bounds, or the severity of "
    '"{name}" in validation.severity.'
)


@dataclass(frozen=True)
class Exists:
    """The column is there."""


@dataclass(frozen=True)
class Present:
    """No value is missing."""


@dataclass(frozen=True)
class OneOf:
    """Each value is one of these."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Between:
    """Each value is within bounds; `below` excludes the maximum itself."""

    minimum: Any = None
    maximum: Any = None
    below: bool = False


@dataclass(frozen=True)
class Rule:
    """An expectation, and what to tell whom it concerns.

    Attributes:
        name: What it is called in `validation.severity`.
        column: What it is about: a column, or a figure such as "rows".
        text: What is expected, to be read after the column's name.
        remedy: What to do when it is not so.
        check: The same for a machine.
        severity: "fail" stops the night, "warn" only says so.
    """

    name: str
    column: str
    text: str
    remedy: str
    check: Exists | Present | OneOf | Between
    severity: Severity = "fail"


def type_rules(table: Table) -> list[Rule]:
    """The columns that a table must have, to be checked on a row that names their types."""
    rules: list[Rule] = []
    for column in table.columns:
        name, dtype = column.name, str(column.dtype)
        expected = OneOf((dtype,))
        rules.append(Rule(f"{name} exists", name, "exists", _REBUILD, Exists()))
        rules.append(Rule(f"type of {name}", name, f"is of type {dtype}", _REBUILD, expected))
    return rules


def row_rules(table: Table, *, until: datetime, event_types: Sequence[str]) -> list[Rule]:
    """What each row of a table must be like.

    Args:
        table: Its definition.
        until: Timestamps must be before this.
        event_types: Known kinds of events; empty: all are.
    """
    rules = [rule for column in table.columns for rule in _column_rules(column, until)]
    if event_types:
        rules.append(
            Rule(
                "event_type is known",
                "event_type",
                f"is one of {', '.join(event_types)}",
                "Correct the file, or add the kind to validation.event_types.",
                OneOf(tuple(event_types)),
            )
        )
    return rules


def night_rules(
    *, min_rows: int, max_rows: int | None, max_quarantined_share: float, refused: str
) -> list[Rule]:
    """What all that is new must be like, taken together.

    Args:
        min_rows: Fewest rows of events.
        max_rows: Most rows of events.
        max_quarantined_share: Largest share of rows that were refused.
        refused: Which were refused why, in words.
    """
    most = "" if max_rows is None else f" and at most {max_rows}"
    return [
        Rule(
            "rows",
            "rows",
            f"are at least {min_rows}{most}",
            "Check that the export is whole, or change validation.min_rows or max_rows.",
            Between(min_rows, max_rows),
        ),
        Rule("repeated rows", "repeated rows", "are none", _REBUILD, Between(maximum=0)),
        Rule("misplaced rows", "misplaced rows", "are none", _REBUILD, Between(maximum=0)),
        Rule(
            "quarantined share",
            "quarantined share",
            f"is at most {max_quarantined_share}",
            f"Correct the files (refused: {refused or 'nothing'}; the lake's table `quarantine` "
            "says which rows), or raise source.max_quarantined_share.",
            Between(maximum=max_quarantined_share),
        ),
    ]


ROWS, USERS = "daily rows", "daily users"
NEW_ITEMS, EVENT_MIX, SHIFT = "new item share", "event mix", "popularity shift"
LOST, NEW = "lost event kinds", "new event kinds"


def day_rules(bounds: Mapping[str, tuple[float, float]]) -> list[Rule]:
    """What a day must be like against the trailing days.

    Args:
        bounds: From ROWS, USERS, NEW_ITEMS, EVENT_MIX and SHIFT to where the rule warns and where
            it fails: a factor (more or fewer times the usual) for rows and users, a difference
            from the usual for the others.
    """
    rules: list[Rule] = []
    for column, (warn, fail) in bounds.items():
        rules.append(_bounded(column, column, fail, "fail"))
        rules.append(_bounded(f"usual {column}", column, warn, "warn"))
    return [
        *rules,
        _day_rule(LOST, LOST, "are none", Between(maximum=0), "fail"),
        _day_rule(NEW, NEW, "are none", Between(maximum=0), "warn"),
    ]


def with_severity(rules: Sequence[Rule], severity: Mapping[str, Severity]) -> list[Rule]:
    """The rules, of which the named ones are more or less severe."""
    return [replace(rule, severity=severity.get(rule.name, rule.severity)) for rule in rules]


def names_of_rules(table: Table) -> list[str]:
    """Names of the rules whose severity can be set: all but those on the columns themselves."""
    rules = [
        *row_rules(table, until=LATEST, event_types=("any",)),
        *night_rules(min_rows=0, max_rows=None, max_quarantined_share=0, refused=""),
        *day_rules(dict.fromkeys((ROWS, USERS, NEW_ITEMS, EVENT_MIX, SHIFT), (1, 1))),
    ]
    return [rule.name for rule in rules]


def shown(value: Any) -> str:
    """A value in words."""
    if value is None or value != value:  # NaN is not itself
        return "missing"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column_rules(column: Column, until: datetime) -> Iterator[Rule]:
    name, low, high = column.name, column.minimum, column.maximum
    if name == "timestamp":
        high = until
    if column.required:
        text = "has no missing values"
        yield Rule(f"{name} {text}", name, text, _CORRECT, Present())
    if column.finite:
        finite = Between(-_LARGEST_FLOAT32, _LARGEST_FLOAT32)
        yield Rule(f"{name} is finite", name, "is finite", _CORRECT, finite)
    if low is not None:
        least = Between(minimum=low)
        yield Rule(f"{name} is not too low", name, f"is at least {shown(low)}", _CORRECT, least)
    if high is not None:
        most = Between(maximum=high, below=True)
        yield Rule(f"{name} is not too high", name, f"is before {shown(high)}", _CORRECT, most)


def _bounded(name: str, column: str, bound: float, severity: Severity) -> Rule:
    if column in (ROWS, USERS):
        text = f"are at least 1/{bound:g} and at most {bound:g} times the usual"
        return _day_rule(name, column, text, Between(1 / bound, bound), severity)
    text = f"is at most {bound:g} above the usual"
    return _day_rule(name, column, text, Between(maximum=bound), severity)


def _day_rule(name: str, column: str, text: str, check: Between, severity: Severity) -> Rule:
    return Rule(name, column, text, _LOOK.format(name=name), check, severity)
