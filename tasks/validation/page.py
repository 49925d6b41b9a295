"""The result of the validation: a summary in Markdown, and an HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from markupsafe import Markup

from recsys_core.data.drift.day_profile import Comparison, DayFigure
from tasks.contracts.ingest import FileResult, total_reasons, total_rows
from tasks.contracts.validation import ComparedDay, Figure, SkippedDay
from tasks.html.render import FINDING_BADGES, render
from tasks.validation.findings import OUTCOMES, with_outcome
from tasks.validation.new_rows import Days, ValidationResult, figures_of
from tasks.validation.rules import ROWS, USERS

MAX_FILES = 50


def summary_of(result: ValidationResult, files: Sequence[FileResult]) -> str:
    """The findings in words, as Markdown."""
    if not files:
        return "# Validation passed\n\nNothing is new: zero rows to examine.\n"
    sorted_out = {outcome: with_outcome(result.findings, outcome) for outcome in OUTCOMES}
    failed, warned, skipped = (sorted_out[name] for name in ("failed", "warned", "skipped"))
    lines = [
        f"# Validation {_verdict(result)}",
        "",
        f"{result.n_rows} new rows, {len(result.findings)} expectations, {len(failed)} not met, "
        f"{len(warned)} warnings, {len(skipped)} skipped.",
        "",
        *(finding.in_words() for finding in failed),
        *([""] if failed else []),
        *(["Warnings, which stop nothing:", ""] if warned else []),
        *(finding.in_words() for finding in warned),
        *([""] if warned else []),
        *(["Not to be decided:", ""] if skipped else []),
        *(finding.in_words() for finding in skipped),
        *([""] if skipped else []),
        "| new file | rows | kept | quarantined | duplicate | reasons |",
        "|---|---|---|---|---|---|",
        *(_file_line(file) for file in files[:MAX_FILES]),
    ]
    if len(files) > MAX_FILES:
        lines += ["", f"And {len(files) - MAX_FILES} more files."]
    return "\n".join(lines) + "\n"


def validation_page(
    result: ValidationResult, files: Sequence[FileResult], *, run_date: date
) -> str:
    """The findings as one HTML page.

    Args:
        result: What the validation found.
        files: The new files.
        run_date: The night's date.
    """
    # Sorting is stable: within an outcome the rules keep their order.
    findings = sorted(result.findings, key=lambda finding: OUTCOMES.index(finding.outcome))
    return render(
        "validation/page.html.j2",
        {
            "run_date": run_date,
            "verdict": _verdict(result) if files else "passed: nothing is new",
            "failed": bool(with_outcome(result.findings, "failed")),
            "tiles": _tiles(result, files),
            "findings": [finding.result() for finding in findings],
            "finding_badges": FINDING_BADGES,
            "files": files[:MAX_FILES],
            "n_more_files": max(0, len(files) - MAX_FILES),
            "totals": total_rows(files),
            "reasons": total_reasons(files).most_common(),
            "days": _day_rows(result.days),
            "skipped_days": _by_reason(result.days.skipped),
            "plots": _plots(result.days),
        },
    )


def day_results(days: Days) -> list[ComparedDay | SkippedDay]:
    """The new dates as they are stored, sorted."""
    skipped = [
        SkippedDay(date=day, n_rows=days.n_rows.get(day), skipped=reason)
        for day, reason in days.skipped.items()
    ]
    compared = [_compared_day(day, days.n_rows.get(day.day)) for day in days.compared]
    return sorted([*skipped, *compared], key=lambda result: result.date)


def _compared_day(compared: Comparison, n_rows: int | None) -> ComparedDay:
    return ComparedDay(
        date=compared.day,
        n_rows=n_rows,
        compared_with=compared.trailing,
        lost_event_kinds=compared.lost_events,
        new_event_kinds=compared.new_events,
        daily_rows=_figure(compared.rows),
        daily_users=_figure(compared.users),
        new_item_share=_figure(compared.new_item_share),
        event_mix=_figure(compared.event_mix),
        popularity_shift=_figure(compared.popularity_shift),
    )


def _figure(figure: DayFigure | None) -> Figure | None:
    return None if figure is None else Figure.model_validate(figure._asdict())


def _verdict(result: ValidationResult) -> str:
    if with_outcome(result.findings, "failed"):
        return "failed: nothing is trained on this"
    warned = len(with_outcome(result.findings, "warned"))
    return f"passed, with {warned} warning{'s'[: warned > 1]}" if warned else "passed"


def _file_line(file: FileResult) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in file.reasons.items()) or "-"
    counts = " | ".join(str(count) for count in total_rows([file]).values())
    return f"| {file.source} | {counts} | {reasons} |"


def _tiles(result: ValidationResult, files: Sequence[FileResult]) -> list[tuple[str, str, str]]:
    counts = {outcome: len(with_outcome(result.findings, outcome)) for outcome in OUTCOMES}
    n_days = len(result.days.compared) + len(result.days.skipped)
    return [
        ("New rows", f"{result.n_rows:,}", f"dates: {n_days:,}, files: {len(files):,}"),
        ("Not met", f"{counts['failed']:,}", f"of {len(result.findings):,} expectations"),
        ("Warnings", f"{counts['warned']:,}", "which stop nothing"),
        ("Met", f"{counts['passed']:,}", "as expected"),
        ("Skipped", f"{counts['skipped']:,}", "could not be decided"),
    ]


def _day_rows(days: Days) -> list[dict[str, Any]]:
    """One row per compared day, the newest first."""
    return [
        {
            "day": compared_day.day,
            "n_trailing": len(compared_day.trailing),
            "figures": [
                ("–", "")
                if figure is None
                else (f"{figure.value:,.0f}", f"usually {figure.usual:,.0f}")
                if name in (ROWS, USERS)
                else (f"{figure.value:.3f}", f"usually {figure.usual:.3f}")
                for name, figure in figures_of(compared_day).items()
            ],
            "kinds": [
                *(f"{kind}: lost" for kind in compared_day.lost_events),
                *(f"{kind}: new" for kind in compared_day.new_events),
            ],
        }
        for compared_day in reversed(days.compared)
    ]


def _by_reason(skipped: Mapping[date, str]) -> list[tuple[str, str]]:
    """The dates that could not be compared, grouped by reason."""
    grouped: dict[str, list[date]] = {}
    for day, reason in sorted(skipped.items()):
        grouped.setdefault(reason, []).append(day)
    return [(_dates(days), reason) for reason, days in grouped.items()]


def _dates(days: Sequence[date]) -> str:
    if len(days) == 1:
        return f"{days[0]}"
    return f"{len(days)} dates from {days[0]} to {days[-1]}"


def _plots(days: Days) -> dict[str, Markup]:
    """The plots as safe HTML, because Matplotlib escapes their texts; none without rows."""
    if not days.n_rows:
        return {}
    from tasks.validation.plots import shift_plot, volume_plot

    new: Iterable[date] = {*days.skipped, *(compared_day.day for compared_day in days.compared)}
    plots = {"volume": volume_plot(days.n_rows, new), "shift": ""}
    shifts: dict[date, float] = {}
    for compared_day in days.compared:
        # A day keeps the distance of its own comparison, not that as another day's trailing day.
        shifts = {
            **compared_day.shifts,
            **shifts,
            compared_day.day: compared_day.shifts[compared_day.day],
        }
    if shifts:
        plots["shift"] = shift_plot(shifts, new)
    return {name: Markup(svg) for name, svg in plots.items()}  # noqa: S704
