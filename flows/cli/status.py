"""The tables of `recdistill data status`."""

from pathlib import Path

from rich.table import Table

from flows.cli.output import console, numbers, say
from recsys_core.data.lake.status import LakeStatus
from recsys_core.units import format_bytes

_DATES_SHOWN = 14


def print_status(status: LakeStatus, lake: Path) -> None:
    """Print the status of a lake.

    Args:
        status: The result of `lake_status`.
        lake: Its folder.
    """
    say(f"Lake {lake.resolve()}")
    _print_tables(status)
    _print_dates(status)
    _print_quarantine(status)
    _print_sources(status)


def _print_tables(status: LakeStatus) -> None:
    table = Table("table", *numbers("version", "rows", "files", "size"))
    for counts in status.tables:
        sizes = (
            f"{counts.version}",
            f"{counts.rows:,}",
            f"{counts.files:,}",
            format_bytes(counts.bytes),
        )
        table.add_row(counts.name, *sizes)
    console.print(table)


def _print_dates(status: LakeStatus) -> None:
    days = list(status.rows_by_date.items())
    if not days:
        say("No interactions yet.")
        return
    table = Table("date", *numbers("rows"))
    for day, rows in days[-_DATES_SHOWN:]:
        table.add_row(f"{day}", f"{rows:,}")
    console.print(table)
    earlier = ", the newest of them above" if len(days) > _DATES_SHOWN else ""
    say(f"{len(days)} dates with interactions, {days[0][0]} to {days[-1][0]}{earlier}.")
    gaps = ", ".join(
        f"{first}" if first == last else f"{first} to {last}" for first, last in status.gaps
    )
    say(f"Gaps: {gaps}." if gaps else "No gaps.")


def _print_quarantine(status: LakeStatus) -> None:
    if not status.quarantined:
        say("The quarantine is empty.")
        return
    table = Table("quarantined because", *numbers("rows"))
    for reason, rows in status.quarantined.items():
        table.add_row(reason, f"{rows:,}")
    console.print(table)


def _print_sources(status: LakeStatus) -> None:
    files = status.sources
    rows_in = sum(file.rows_in for file in files)
    kept = sum(file.rows_kept for file in files)
    refused = sum(file.rows_quarantined for file in files)
    repeated = sum(file.rows_duplicate for file in files)
    say(
        f"{len(files)} source files brought {rows_in:,} rows = {kept:,} kept + {refused:,} "
        f"quarantined + {repeated:,} duplicates."
    )
    waiting = [file.source for file in files if not file.validated]
    if waiting:
        say(f"Not validated yet: {', '.join(waiting)}.")
