"""All that is new, held against the rules: date by date, in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys_core.data.drift.day_profile import FEWEST_ROWS, Comparison, DayFigure
from recsys_core.data.drift.partitions import count_misplaced, count_repeated, pieces, rows_of
from recsys_core.data.drift.trailing import Trailing
from recsys_core.data.ingest.clean_interactions import ARRIVAL_BITS
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, NOT_THE_FILES_FAULT
from recsys_core.settings import Progress
from tasks.validation.findings import Finding, Result, Tally, with_outcome
from tasks.validation.rules import (
    EVENT_MIX,
    LOST,
    NEW,
    NEW_ITEMS,
    ROWS,
    SHIFT,
    USERS,
    Rule,
    type_rules,
)

if TYPE_CHECKING:
    from tasks.validation.great_expectations import Examiner

_FEW = f"fewer than {FEWEST_ROWS} rows or users"


@dataclass(frozen=True)
class Days:
    """New dates against the days before them.

    Attributes:
        compared: What was compared, by ascending date.
        skipped: The other dates, and why they could not be.
        n_rows: All rows in the lake, of the dates that were looked at.
    """

    compared: list[Comparison] = field(default_factory=list)
    skipped: dict[date, str] = field(default_factory=dict)
    n_rows: dict[date, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Examination:
    """What an examination found.

    Attributes:
        n_rows: New rows that were examined.
        findings: A finding a rule.
        days: The new dates against the days before them.
    """

    n_rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    days: Days = field(default_factory=Days)


@dataclass(frozen=True)
class Rules:
    """The rules of a night, by what they are held against: each row, all that is new, each day."""

    rows: list[Rule]
    night: list[Rule]
    days: list[Rule]


class Examined:
    """The new rows of a lake, to be examined.

    Args:
        lake: The lake.
        facts: What `ingest.json` says.
        files: Those of its files that are new, at least one.
    """

    def __init__(
        self, lake: Lake, facts: Mapping[str, Any], files: Sequence[Mapping[str, Any]]
    ) -> None:
        self._facts = facts
        self._files = files
        self._names = [file["source"] for file in files]
        self._dates = sorted(date.fromisoformat(day) for day in facts["new_dates"])
        self.table = lake.snapshot(INTERACTIONS, facts["versions"][INTERACTIONS.name]).scan()
        self.until = datetime.fromisoformat(facts["available_until"])

    def examine(
        self, examiner: "Examiner", rules: Rules, *, trailing_days: int, progress: Progress
    ) -> Examination:
        """Hold everything against the rules; where the table itself is wrong, only its columns."""
        columns = _columns(examiner, self.table.collect_schema())
        if with_outcome(columns, "failed"):
            return Examination(findings=columns)
        trailing = Trailing(self.table, self._names, n_days=trailing_days, until=self.until)
        days = Days()
        suite = examiner.suite("rows", rules.rows)
        tallies = [Tally(rule) for rule in rules.rows]
        n_rows = 0
        defects = Counter[str]()
        for done, day in enumerate(self._dates):
            progress(done / len(self._dates), f"{day}")
            rows = rows_of(self.table, day, self._names)
            for name, piece in _named(day, pieces(rows)):
                n_rows += piece.height
                results = suite.examine(piece, name)
                for tally, result in zip(tallies, results, strict=True):
                    tally.add(result, _places(piece, result))
            defects["repeated rows"] += count_repeated(rows)
            defects["misplaced rows"] += count_misplaced(rows)
            self._compare(trailing, day, days)
        days.n_rows.update(trailing.n_rows)
        night = self._night_facts(n_rows, defects)
        findings = [
            *columns,
            *_of_night(examiner, rules.night, night),
            *(tally.finding() for tally in tallies),
            *_of_days(examiner, rules.days, days),
        ]
        return Examination(n_rows, findings, days)

    def _compare(self, trailing: Trailing, day: date, days: Days) -> None:
        if self._facts["timestamp_kind"] == "order":
            days.skipped[day] = "the timestamps are only an order"
            return
        outcome = trailing.compare(day)
        if isinstance(outcome, str):
            days.skipped[day] = outcome
        else:
            days.compared.append(outcome)

    def _night_facts(self, n_rows: int, defects: Mapping[str, int]) -> dict[str, float]:
        """Figures of all that is new; no number of rows where only a catalogue is new."""
        facts = {
            **{name: defects[name] for name in ("repeated rows", "misplaced rows")},
            "quarantined share": quarantined_share(self._files),
        }
        prefix = f"{INTERACTIONS.name}/"
        events = [file for file in self._files if file["source"].startswith(prefix)]
        if events:
            facts["rows"] = n_rows + sum(file["rows_duplicate"] for file in events)
        return facts


def quarantined_share(files: Iterable[Mapping[str, Any]]) -> float:
    """Share of bad rows in the files, without those refused for no fault of their file."""
    refused = judged = 0
    for file in files:
        apart = sum(file["reasons"].get(reason, 0) for reason in NOT_THE_FILES_FAULT)
        refused += file["rows_quarantined"] - apart
        judged += file["rows_in"] - apart
    return refused / judged if judged else 0.0


def figures_of(compared: Comparison) -> dict[str, DayFigure | None]:
    """The figures that have a usual value, by the names of their rules."""
    return {
        ROWS: compared.rows,
        USERS: compared.users,
        NEW_ITEMS: compared.new_item_share,
        EVENT_MIX: compared.event_mix,
        SHIFT: compared.popularity_shift,
    }


def _columns(examiner: "Examiner", schema: pl.Schema) -> list[Finding]:
    """The columns that the table really has: a row that holds their types."""
    types = {name: str(dtype) for name, dtype in schema.items()}
    return _of_figures(examiner, "columns", type_rules(INTERACTIONS), types)


def _of_night(
    examiner: "Examiner", rules: Sequence[Rule], facts: Mapping[str, Any]
) -> list[Finding]:
    decided = [rule for rule in rules if rule.column in facts]
    skipped = [Tally(rule, note="no new file of events") for rule in rules if rule not in decided]
    findings = _of_figures(examiner, "night", decided, facts)
    return [*findings, *(tally.finding() for tally in skipped)]


def _of_figures(
    examiner: "Examiner", name: str, rules: Sequence[Rule], facts: Mapping[str, Any]
) -> list[Finding]:
    """Hold figures that were computed elsewhere against rules, as a table of one row."""
    row = pl.DataFrame({name: [value] for name, value in facts.items()})
    tallies = [Tally(rule) for rule in rules]
    for tally, result in zip(tallies, examiner.suite(name, rules).examine(row, name), strict=True):
        tally.add(result)
    return [tally.finding() for tally in tallies]


def _of_days(examiner: "Examiner", rules: Sequence[Rule], days: Days) -> list[Finding]:
    """Hold the figures of the days against rules, as a table of a row a day."""
    table = pl.DataFrame([_deviations(one) for one in days.compared], schema=_DEVIATIONS)
    tallies = [Tally(rule, note=_undecided(rule.column, days)) for rule in rules]
    decided = [tally for tally in tallies if table[tally.rule.column].count()]
    if decided:
        suite = examiner.suite("days", [tally.rule for tally in decided])
        for tally, result in zip(decided, suite.examine(table, "days"), strict=True):
            about = tally.rule.column
            tally.add(result, [_of_day(days.compared[row], about) for row in result.rows])
    return [tally.finding() for tally in tallies]


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
    """Which days a rule says nothing of, and why: the latest of them."""
    reasons = dict(days.skipped)
    for one in days.compared:
        if figures_of(one).get(column, ...) is None:
            reasons[one.day] = _FEW
    if not reasons:
        return ""
    latest = max(reasons)
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{latest}: {reasons[latest]}{more}"


def _of_day(compared: Comparison, column: str) -> str:
    """A day and what was found on it."""
    if column in (LOST, NEW):
        kinds = compared.lost_events if column == LOST else compared.new_events
        return f"{compared.day}: {', '.join(kinds)}"
    figure = figures_of(compared)[column]
    assert figure is not None, "a day without the figure is not unexpected"
    value, usual = (
        f"{number:,.0f}" if column in (ROWS, USERS) else f"{number:.3f}" for number in figure[:2]
    )
    return f"{compared.day}: {value}, usually {usual}"


def _named(day: date, parts: Iterator[pl.DataFrame]) -> Iterator[tuple[str, pl.DataFrame]]:
    for number, part in enumerate(parts, start=1):
        yield f"{day}" if number == 1 else f"{day}-part-{number}", part


def _places(rows: pl.DataFrame, result: Result) -> list[str]:
    """Source and row of a result's sample."""
    mask = (1 << ARRIVAL_BITS) - 1
    chosen = rows[result.rows].select("source", pl.col("arrival") & mask)
    return [f"{source} row {row}" for source, row in chosen.iter_rows()]
