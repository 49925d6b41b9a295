"""The rules for new rows and new days: configurations of Great Expectations, as plain data.

The rules for rows come from `recsys_core.data.schema`, which cleaning uses too. This module does
not import Great Expectations, which takes seconds to load.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from recsys_core.data.schema import INTERACTIONS, LATEST, Column, Table
from recsys_core.settings import Settings
from tasks.contracts.validation import Severity

EXISTS = "expect_column_to_exist"
NOT_NULL = "expect_column_values_to_not_be_null"
IN_SET = "expect_column_values_to_be_in_set"
BETWEEN = "expect_column_values_to_be_between"
ROW_BY_ROW = (EXISTS, NOT_NULL, IN_SET, BETWEEN)
"""Types whose result is the same for all rows at once and in parts; others may differ."""

_LARGEST_FLOAT32 = 3.4028234e38
_CORRECT = (
    "Correct the file, or remove it: rows of a file that was never valid leave the lake again."
)
_REBUILD = "The lake was written by something else; restore it, or ingest into an empty lake."
_LOOK = (
    "Look at that day's export. If it is right, change validation.bounds, or the severity of "
    '"{name}" in validation.severity.'
)


class OwnExpectation(Settings):
    """A user's own expectation about the new interactions; other fields are its arguments.

    `description` states what is expected, to be read after the column's name, and `notes` the
    remedy. Without a description the text is that of Great Expectations.
    """

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description='Type in Great Expectations, such as "expect_column_values_to_be_between".'
    )
    severity: Severity = Field(
        default="fail", description='"fail" stops the night, "warn" only reports it.'
    )


@dataclass(frozen=True)
class Rule:
    """An expectation of Great Expectations, with the texts for users.

    Attributes:
        name: Unique name in `validation.severity` and in Great Expectations.
        text: What is expected, to be read after the column's name.
        remedy: What to do if data breaks the rule.
        type: The expectation's type.
        arguments: The expectation's arguments, the columns among them.
        severity: "fail" stops the night, "warn" only reports it.
    """

    name: str
    text: str
    remedy: str
    type: str
    arguments: Mapping[str, Any]
    severity: Severity = "fail"

    @property
    def columns(self) -> list[str]:
        """The columns or figures that the rule checks; none for a rule about the whole table."""
        single = (self.arguments.get(key) for key in ("column", "column_A", "column_B"))
        return [*filter(None, single), *self.arguments.get("column_list", ())]

    @property
    def column(self) -> str:
        """The columns as text."""
        return ", ".join(self.columns) or INTERACTIONS.name


def type_rules(table: Table) -> list[Rule]:
    """Rules for a table's columns and their types, checked on a row that holds the types."""
    rules: list[Rule] = []
    for column in table.columns:
        about, dtype = {"column": column.name}, str(column.dtype)
        text = f"is of type {dtype}"
        rules += [
            Rule(f"{column.name} exists", "exists", _REBUILD, EXISTS, about),
            Rule(f"type of {column.name}", text, _REBUILD, IN_SET, {**about, "value_set": [dtype]}),
        ]
    return rules


def row_rules(table: Table, *, until: datetime, event_types: Sequence[str]) -> list[Rule]:
    """Rules for each row of a table.

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
                f"is one of {', '.join(event_types)}",
                "Correct the file, or add the kind to validation.event_types.",
                IN_SET,
                {"column": "event_type", "value_set": list(event_types)},
            )
        )
    return rules


def night_rules(
    *, min_rows: int, max_rows: int | None, max_quarantined_share: float, refused: str
) -> list[Rule]:
    """Rules for all new rows together.

    Args:
        min_rows: Fewest rows of events.
        max_rows: Most rows of events.
        max_quarantined_share: Largest share of rows that were refused.
        refused: Number of refused rows by reason, as text.
    """
    most = "" if max_rows is None else f" and at most {max_rows}"
    return [
        _bounded(
            "rows",
            f"are at least {min_rows}{most}",
            "Check that the export is whole, or change validation.min_rows or max_rows.",
            min_value=min_rows,
            max_value=max_rows,
        ),
        _bounded("repeated rows", "are none", _REBUILD, max_value=0),
        _bounded("misplaced rows", "are none", _REBUILD, max_value=0),
        _bounded(
            "quarantined share",
            f"is at most {max_quarantined_share}",
            f"Correct the files (refused: {refused or 'nothing'}; the lake's table `quarantine` "
            "says which rows), or raise source.max_quarantined_share.",
            max_value=max_quarantined_share,
        ),
    ]


ROWS, USERS = "daily rows", "daily users"
NEW_ITEMS, EVENT_MIX, SHIFT = "new item share", "event mix", "popularity shift"
LOST, NEW = "lost event kinds", "new event kinds"


def day_rules(bounds: Mapping[str, tuple[float, float]]) -> list[Rule]:
    """Rules for a day compared with the trailing days.

    Args:
        bounds: For each of ROWS, USERS, NEW_ITEMS, EVENT_MIX and SHIFT the bound of a warning and
            of a failure: a factor (more or fewer times the usual) for rows and users, a difference
            from the usual for the others.
    """
    rules: list[Rule] = []
    for column, (warn, fail) in bounds.items():
        rules.append(_day_rule(column, column, fail, "fail"))
        rules.append(_day_rule(f"usual {column}", column, warn, "warn"))
    return [
        *rules,
        _bounded(LOST, "are none", _LOOK.format(name=LOST), max_value=0),
        _bounded(NEW, "are none", _LOOK.format(name=NEW), severity="warn", max_value=0),
    ]


def with_severity(rules: Sequence[Rule], severity: Mapping[str, Severity]) -> list[Rule]:
    """The rules, with the given severity for the named ones."""
    return [replace(rule, severity=severity.get(rule.name, rule.severity)) for rule in rules]


def names_of_rules(table: Table) -> list[str]:
    """Names of the rules whose severity can be set: all except those of `type_rules`."""
    rules = [
        *row_rules(table, until=LATEST, event_types=("any",)),
        *night_rules(min_rows=0, max_rows=None, max_quarantined_share=0, refused=""),
        *day_rules(dict.fromkeys((ROWS, USERS, NEW_ITEMS, EVENT_MIX, SHIFT), (1, 1))),
    ]
    return [rule.name for rule in rules]


def _column_rules(column: Column, until: datetime) -> Iterator[Rule]:
    name, low, high = column.name, column.minimum, column.maximum
    if name == "timestamp":
        high = until

    def rule(text: str, called: str, type_: str, **arguments: Any) -> Rule:
        return Rule(f"{name} {called}", text, _CORRECT, type_, {"column": name, **arguments})

    if column.required:
        text = "has no missing values"
        yield rule(text, text, NOT_NULL)
    if column.finite:
        largest = _LARGEST_FLOAT32
        yield rule("is finite", "is finite", BETWEEN, min_value=-largest, max_value=largest)
    if low is not None:
        yield rule(f"is at least {low}", "is not too low", BETWEEN, min_value=low)
    if high is not None:
        yield rule(f"is before {high}", "is not too high", BETWEEN, max_value=high, strict_max=True)


def _day_rule(name: str, column: str, bound: float, severity: Severity) -> Rule:
    if column in (ROWS, USERS):
        text = f"are at least 1/{bound:g} and at most {bound:g} times the usual"
        bounds = {"min_value": 1 / bound, "max_value": bound}
    else:
        text, bounds = f"is at most {bound:g} above the usual", {"max_value": bound}
    return _bounded(name, text, _LOOK.format(name=name), severity, column=column, **bounds)


def _bounded(
    name: str, text: str, remedy: str, severity: Severity = "fail", **arguments: Any
) -> Rule:
    """A rule on a figure; without `column` the figure has the rule's name."""
    return Rule(name, text, remedy, BETWEEN, {"column": name, **arguments}, severity)
