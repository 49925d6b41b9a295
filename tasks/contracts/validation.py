"""What validate says of the new rows: each expectation, and each new date."""

import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from recsys_core.json_file import JsonFile

Severity = Literal["warn", "fail"]
ExpectationOutcome = Literal["failed", "warned", "passed", "skipped"]


class ExpectationResult(BaseModel):
    """What became of an expectation.

    Attributes:
        name: Name of the rule.
        column: The column, or the figure of the night or of a date.
        expectation: What is expected of it, in words.
        severity: What follows if it does not hold.
        outcome: Whether it holds.
        unexpected: Number of values that break it; None where nothing can be counted.
        sample: Some of these values.
        places: Where each of the sample is: source and row, or a date with its figures.
        remedy: What to do; empty if it holds.
        note: Why it was skipped, or what was left out; empty if there is nothing to add.
        success: False for what failed and for what only warns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    column: str
    expectation: str
    severity: Severity
    outcome: ExpectationOutcome
    unexpected: int | None
    sample: tuple[str, ...]
    places: tuple[str, ...]
    remedy: str
    note: str
    success: bool


class Figure(BaseModel):
    """A figure of a date, as `recsys_core.data.drift.day_profile.DayFigure`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int | float
    usual: int | float
    deviation: int | float


class ComparedDay(BaseModel):
    """A new date against its trailing days; a figure is None where there are too few rows.

    Attributes:
        date: The new date.
        n_rows: Number of its rows in the lake.
        compared_with: The trailing days.
        lost_event_kinds: Kinds with less than a tenth of their expected rows.
        new_event_kinds: Kinds that occur on no trailing day.
        daily_rows: Number of rows.
        daily_users: Number of users.
        new_item_share: Share of the rows whose item occurs on no trailing day.
        event_mix: Largest absolute change of a kind's share of the rows.
        popularity_shift: Distance between the popularity of the items, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: datetime.date
    n_rows: int | None
    compared_with: tuple[datetime.date, ...]
    lost_event_kinds: tuple[str, ...]
    new_event_kinds: tuple[str, ...]
    daily_rows: Figure | None
    daily_users: Figure | None
    new_item_share: Figure | None
    event_mix: Figure | None
    popularity_shift: Figure | None


class SkippedDay(BaseModel):
    """A new date that could not be compared.

    Attributes:
        date: The new date.
        n_rows: Number of its rows in the lake; None if they were not counted.
        skipped: Why it was not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: datetime.date
    n_rows: int | None
    skipped: str


class ValidationReport(JsonFile):
    """All that validate found.

    Attributes:
        n_rows: Number of new rows that were checked.
        success: Whether training may follow: no expectation of severity "fail" is broken.
        expectations: The result of each expectation.
        days: The new dates, sorted.
    """

    file_name: ClassVar[str] = "validation.json"

    n_rows: int
    success: bool
    expectations: tuple[ExpectationResult, ...]
    days: tuple[ComparedDay | SkippedDay, ...]
