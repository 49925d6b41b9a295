"""The tables of `recdistill data status`."""

from pathlib import Path

from rich.table import Table

from flows.cli.output import console, numbers, say
from recsys_core.data.lake.status import LakeStatus
from recsys_core.units import format_bytes

_DATES_SHOWN = 14


def print_status(found: LakeStatus, lake: Path) -> None:
    """Print what a lake holds.

    Args:
        found: From `lake_status`.
        lake: Its folder.
    """
    say(f"Lake {lake.resolve()}")
    _print_tables(found)
    _print_dates(found)
    _print_quarantine(found)
    _print_sources(found)


def _print_tables(found: LakeStatus) -> None:
    table = Table("table", *numbers("version", "rows", "files", "size"))
    for one in found.tables:
        sizes = (f"{one.version}", f"{one.rows:,}", f"{one.files:,}", format_bytes(one.bytes))
        table.add_row(one.name, *sizes)
    console.print(table)


def _print_dates(found: LakeStatus) -> None:
    days = list(found.rows_by_date.items())
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
        f"{first}" if first == last else f"{first} to {last}" for first, last in found.gaps
    )
    say(f"Gaps: {gaps}." if gaps else "No gaps.")


def _print_quarantine(found: LakeStatus) -> None:
    if not found.quarantined:
        say("The quarantine is empty.")
        return
    table = Table("quarantined because", *numbers("rows"))
    for reason, rows in found.quarantined.items():
        table.add_row(reason, f"{rows:,}")
    console.print(table)


def _print_sources(found: LakeStatus) -> None:
    files = found.sources
    rows_in = sum(one.rows_in for one in files)
    kept = sum(one.rows_kept for one in files)
    refused = sum(one.rows_quarantined for one in files)
    repeated = sum(one.rows_duplicate for one in files)
    say(
        f"{len(files)} source files brought {rows_in:,} rows = {kept:,} kept + {refused:,} "
        f"quarantined + {repeated:,} duplicates."
    )
    waiting = [one.source for one in files if not one.validated]
    if waiting:
        say(f"Not validated yet: {', '.join(waiting)}.")
