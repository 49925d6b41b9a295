"""Checks of the new rows of a lake, in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_core.data.drift.day_profile import FEWEST_ROWS, Comparison, DayFigure
from recsys_core.data.drift.partitions import (
    PIECE_ROWS,
    count_misplaced,
    count_repeated,
    pieces,
    rows_of,
)
from recsys_core.data.drift.trailing import Trailing
from recsys_core.data.ingest.clean_interactions import ARRIVAL_BITS
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, NOT_THE_FILES_FAULT
from recsys_core.settings import Progress
from tasks.contracts.ingest import FileResult, IngestResult
from tasks.validation.findings import Finding, with_outcome
from tasks.validation.rules import (
    EVENT_MIX,
    LOST,
    NEW,
    NEW_ITEMS,
    ROW_BY_ROW,
    ROWS,
    SHIFT,
    USERS,
    Rule,
    type_rules,
)

if TYPE_CHECKING:
    from tasks.validation.great_expectations import GxRunner, Suite

_NO_EVENTS = "no new file of events"
_FEW = f"fewer than {FEWEST_ROWS} rows or users"


@dataclass(frozen=True)
class Days:
    """Comparisons of the new dates with the days before them.

    Attributes:
        compared: The comparisons, by ascending date.
        skipped: Dates that could not be compared, with the reason.
        n_rows: Number of rows in the lake of each date that was counted.
    """

    compared: list[Comparison] = field(default_factory=list)
    skipped: dict[date, str] = field(default_factory=dict)
    n_rows: dict[date, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationResult:
    """The result of the validation of new rows.

    Attributes:
        n_rows: New rows that were checked.
        findings: One finding per rule.
        days: Comparisons of the new dates with the days before them.
    """

    n_rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    days: Days = field(default_factory=Days)


@dataclass(frozen=True)
class RuleSet:
    """The rules of a night: for each new row, for all new rows together, for each new day."""

    rows: list[Rule]
    night: list[Rule]
    days: list[Rule]


class NewRows:
    """The new rows of a lake.

    Args:
        lake: The lake.
        ingested: Which rows of the lake are new; at least one of its files is.
        piece_rows: Rows that are held in memory at a time.
    """

    def __init__(self, lake: Lake, ingested: IngestResult, *, piece_rows: int = PIECE_ROWS) -> None:
        self._ingested = ingested
        self._piece_rows = piece_rows
        self._files = ingested.new_files
        self._names = [file.source for file in self._files]
        version = ingested.versions[INTERACTIONS.name]
        self.table = lake.snapshot(INTERACTIONS, version).scan()
        self.until = datetime.fromisoformat(ingested.available_until)

    def check(
        self, gx: "GxRunner", rules: RuleSet, *, trailing_days: int, progress: Progress
    ) -> ValidationResult:
        """Check all rules; if the table's columns are wrong, check only these."""
        types = {name: str(dtype) for name, dtype in self.table.collect_schema().items()}
        columns = _of_figures(gx, "columns", type_rules(INTERACTIONS), types)
        if with_outcome(columns, "failed"):
            return ValidationResult(findings=columns)
        trailing = Trailing(self.table, self._names, n_days=trailing_days, until=self.until)
        days = Days()
        suite = gx.suite("rows", rules.rows)
        of_rows = _RowRules(suite, self._piece_rows)
        defects = Counter[str]()
        dates = self._ingested.new_dates
        for done, day in enumerate(dates):
            progress(done / len(dates), f"{day}")
            rows = rows_of(self.table, day, self._names)
            of_rows.add(day, rows)
            defects["repeated rows"] += count_repeated(rows, self._piece_rows)
            defects["misplaced rows"] += count_misplaced(rows)
            self._compare(trailing, day, days)
        of_rows.finish()
        days.n_rows.update(trailing.n_rows)
        night = self._night_facts(of_rows.n_rows, defects)
        findings = [
            *columns,
            *_of_figures(
                gx, "night", [rule for rule in rules.night if rule.column in night], night
            ),
            *(Finding(rule, _NO_EVENTS) for rule in rules.night if rule.column not in night),
            *suite.findings,
            *_of_days(gx, rules.days, days),
        ]
        return ValidationResult(of_rows.n_rows, findings, days)

    def _compare(self, trailing: Trailing, day: date, days: Days) -> None:
        if self._ingested.timestamp_kind == "order":
            days.skipped[day] = "the timestamps are only an order"
            return
        outcome = trailing.compare(day)
        if isinstance(outcome, str):
            days.skipped[day] = outcome
        else:
            days.compared.append(outcome)

    def _night_facts(self, n_rows: int, defects: Mapping[str, int]) -> dict[str, float]:
        """Figures of all new rows; without a number of rows if only catalogue files are new."""
        facts = {
            **{name: defects[name] for name in ("repeated rows", "misplaced rows")},
            "quarantined share": quarantined_share(self._files),
        }
        events = [file for file in self._files if file.is_interactions]
        if events:
            facts["rows"] = n_rows + sum(file.rows_duplicate for file in events)
        return facts


def quarantined_share(files: Iterable[FileResult]) -> float:
    """Share of bad rows in the files, without those refused for no fault of their file."""
    refused = judged = 0
    for file in files:
        apart = sum(file.reasons.get(reason, 0) for reason in NOT_THE_FILES_FAULT)
        refused += file.rows_quarantined - apart
        judged += file.rows_in - apart
    return refused / judged if judged else 0.0


def figures_of(compared: Comparison) -> dict[str, DayFigure | None]:
    """The figures that are compared with a usual value, by the names of their rules."""
    return {
        ROWS: compared.rows,
        USERS: compared.users,
        NEW_ITEMS: compared.new_item_share,
        EVENT_MIX: compared.event_mix,
        SHIFT: compared.popularity_shift,
    }


def _of_figures(
    gx: "GxRunner", name: str, rules: Sequence[Rule], figures: Mapping[str, Any]
) -> list[Finding]:
    """Check figures that were computed elsewhere, as a table of one row."""
    suite = gx.suite(name, rules)
    suite.run(pl.DataFrame({name: [value] for name, value in figures.items()}), name)
    return suite.findings


def _of_days(gx: "GxRunner", rules: Sequence[Rule], days: Days) -> list[Finding]:
    """Check the figures of the days, as a table of one row for each day."""
    table = pl.DataFrame([_deviations(compared) for compared in days.compared], schema=_DEVIATIONS)
    findings = {rule.name: Finding(rule) for rule in rules}
    decided = [rule for rule in rules if table[rule.column].count()]
    if decided:
        suite = gx.suite("days", decided)
        suite.run(
            table,
            "days",
            lambda column, rows: [_of_day(days.compared[row], column) for row in rows],
        )
        findings.update({finding.rule.name: finding for finding in suite.findings})
    for finding in findings.values():
        finding.note = _undecided(finding.rule.column, days)
    return list(findings.values())


_DEVIATIONS = pl.Schema(
    {
        **dict.fromkeys((ROWS, USERS, NEW_ITEMS, EVENT_MIX, SHIFT), pl.Float64()),
        **dict.fromkeys((LOST, NEW), pl.Int64()),
    }
)


def _deviations(compared: Comparison) -> dict[str, float | None]:
    figures = figures_of(compared).items()
    return {
        **{name: None if figure is None else figure.deviation for name, figure in figures},
        LOST: len(compared.lost_events),
        NEW: len(compared.new_events),
    }


def _undecided(column: str, days: Days) -> str:
    """The latest day on which a rule could not be checked, with the reason."""
    reasons = dict(days.skipped)
    for compared in days.compared:
        if figures_of(compared).get(column, ...) is None:
            reasons[compared.day] = _FEW
    if not reasons:
        return ""
    latest = max(reasons)
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{latest}: {reasons[latest]}{more}"


def _of_day(compared: Comparison, column: str) -> str:
    """A day with its figure or its kinds of events."""
    if column in (LOST, NEW):
        kinds = compared.lost_events if column == LOST else compared.new_events
        return f"{compared.day}: {', '.join(kinds)}"
    figure = figures_of(compared)[column]
    assert figure is not None, "a day without the figure breaks no rule"
    value, usual = (
        f"{number:,.0f}" if column in (ROWS, USERS) else f"{number:.3f}" for number in figure[:2]
    )
    return f"{compared.day}: {value}, usually {usual}"


class _RowRules:
    """Runs the rules of rows on pieces that fit into memory.

    Rules that look at one row after the other get the rows of several dates at once. If there is
    another, such as one on a mean, each date is checked alone.

    Attributes:
        n_rows: Number of rows so far.
    """

    def __init__(self, suite: "Suite", piece_rows: int) -> None:
        self.n_rows = 0
        self._suite = suite
        self._piece_rows = piece_rows
        self._of_dates = [
            finding for finding in suite.findings if finding.rule.type not in ROW_BY_ROW
        ]
        self._waiting: list[tuple[date, pl.DataFrame]] = []
        self._n_runs = Counter[str]()

    def add(self, day: date, rows: pl.LazyFrame) -> None:
        """Check the new rows of a date, or keep them for `finish` if more rows fit beside them."""
        n_pieces = 0
        for piece in pieces(rows, self._piece_rows):
            n_pieces += 1
            waiting = sum(earlier.height for _, earlier in self._waiting)
            if waiting + piece.height > self._piece_rows:
                self.finish()
            self._waiting.append((day, piece))
            self.n_rows += piece.height
            if self._of_dates:
                self.finish()
        if n_pieces > 1:
            for finding in self._of_dates:
                finding.note = f"{day} was checked in {n_pieces} parts"

    def finish(self) -> None:
        """Check the rows that were kept."""
        if not self._waiting:
            return
        first, last = self._waiting[0][0], self._waiting[-1][0]
        name = f"{first}" if first == last else f"{first}-to-{last}"
        self._n_runs[name] += 1
        if self._n_runs[name] > 1:
            name = f"{name}-part-{self._n_runs[name]}"
        rows = pl.concat([piece for _, piece in self._waiting])
        self._suite.run(rows, name, partial(_places, rows))
        self._waiting.clear()


def _places(piece: pl.DataFrame, _: str, rows: Sequence[int]) -> list[str]:
    """Source and row number of these rows of a piece."""
    mask = (1 << ARRIVAL_BITS) - 1
    chosen = piece[list(rows)].select("source", pl.col("arrival") & mask)
    return [f"{source} row {row}" for source, row in chosen.iter_rows()]
