"""The commands under `recdistill data`: generate, fetch, inspect and delete data."""

import json
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigOption, DataOption, JsonOption, WorkspaceOption, resolve
from flows.cli.output import say, share_bar, today
from recsys_core.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.datasets.download import Progress as DownloadProgress

data_app = typer.Typer(help="Generate, fetch, inspect and delete data.", no_args_is_help=True)


@data_app.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Folder to write or to extend.")],
    days: Annotated[int, typer.Option(min=1, help="Days of history in a new world.")] = 30,
    through: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Last day. Default: yesterday, UTC."),
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Users on the first day.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Items on the first day.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed; equal seeds give equal worlds.")] = 0,
    allow_repeats: Annotated[
        bool, typer.Option("--allow-repeats", help="Let users repeat items; this is faster.")
    ] = False,
    modalities: Annotated[
        bool, typer.Option("--modalities", help="Give items vectors of a text and an image.")
    ] = False,
) -> None:
    """Write a synthetic world whose true preferences are known, or add the missing days to one."""
    from recsys_core.synthetic.world import WorldConfig, write_world

    last = through.date() if through else today("UTC") - timedelta(days=1)
    laws = {"n_users": users, "n_items": items, "seed": seed, "allow_repeats": allow_repeats}
    given = {name: value for name, value in laws.items() if value is not None}
    world = WorldConfig.model_validate({**given, "modalities": modalities})
    with share_bar("days") as progress:
        write_world(
            out,
            world,
            first_day=last - timedelta(days=days - 1),
            through=last,
            progress=progress,
        )
    say(f"The synthetic world in {out} reaches through {last}.")


@data_app.command()
def fetch(
    name: Annotated[
        str | None, typer.Argument(help="Data set to fetch. Without it, list all.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder to create. Default: data/NAME.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Archive that you have downloaded; the network is not used."),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the owner's terms without a question.")
    ] = False,
) -> None:
    """Download a public data set, check it and unpack it for nights."""
    if name is None:
        _print_datasets()
        return
    from flows.datasets.fetch import fetch as bring
    from flows.datasets.fetch import how_to_read, is_there
    from flows.datasets.registry import find_dataset, licence_notice

    dataset = find_dataset(name)
    folder = to or Path("data") / name
    if is_there(dataset, folder):
        say(f"{folder} already holds {name}; nothing to do.")
    else:
        say(licence_notice(dataset))
        _require(
            "Do you accept these terms?", accept_licence, "Nothing was done", "--accept-licence"
        )
        with _byte_bar(f"{name}.zip") as progress:
            bring(dataset, folder, archive=file, progress=progress)
        say(f"{folder} now holds {name}; the checksum is right.")
    say(how_to_read(folder))


@data_app.command()
def status(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show what the lake holds: dates, rows, gaps, quarantine, source files."""
    resolved = resolve(config, None, workspace)
    from flows.cli.status import print_status
    from recsys_core.data.lake.status import lake_status

    lake = lake_status(resolved.workspace / "lake")
    if as_json:
        typer.echo(json.dumps(lake.facts(), indent=2))
        return
    print_status(lake, resolved.workspace / "lake")


@data_app.command()
def backfill(
    first: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First date of events.")
    ],
    last: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last date of events.")
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Read the source files of some dates again and validate their rows."""
    resolved = resolve(config, data, workspace)
    from flows.backfill import backfill as flow
    from flows.cli.log_format import keep_tracebacks_off_the_console

    keep_tracebacks_off_the_console()
    done = flow(first.date(), last.date(), resolved)
    say(
        f"{done['new_files']} files were read: {done['rows_in']:,} rows = {done['rows_kept']:,} "
        f"kept + {done['rows_quarantined']:,} quarantined + {done['rows_duplicate']:,} duplicates."
    )


@data_app.command()
def clean(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and how many bytes.")
    ] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Delete what the retention policy no longer keeps. Every night ends with this, too."""
    resolved = resolve(config, None, workspace)
    from flows.services.lock import workspace_lock
    from tasks.chores.retention import apply_retention, planned_retention

    work = planned_retention if dry_run else apply_retention
    with workspace_lock(resolved.workspace):
        done = work(resolved.workspace, resolved.retention, today=today(resolved.events.timezone))
    for path in (*done.stages, *done.lake_files):
        say(f"{path}")
    say(f"{'Would be deleted' if dry_run else 'Deleted'}: {done.in_words()}.")


@data_app.command()
def forget(
    user: Annotated[str, typer.Option("--user", help="The user's id as in the source.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is stored about the user; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without a question.")] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Erase a user from the lake, its old versions and all stage outputs, irreversibly."""
    resolved = resolve(config, None, workspace)
    from flows.cli.forget import forget as erase
    from flows.cli.forget import look

    traces = look(resolved, user)
    for line in traces.in_words():
        say(line)
    if dry_run:
        return
    _require(
        "Erase this user, and refuse the user's rows in source files from now on?",
        yes,
        "Nothing was erased",
        "--yes",
    )
    with share_bar("erasing") as progress:
        record = erase(resolved, user, progress=progress)
    say(f"Erased. {record} lists what was found; it names the user by a hash.")


def _print_datasets() -> None:
    from flows.datasets.registry import DATASETS

    for dataset in DATASETS:
        say(f"{dataset.name:<16} {format_bytes(dataset.size_bytes):>8}  {dataset.title}")
        say(f"{'':<27}licence: {dataset.licence_url}")
    say("Fetch one with `recdistill data fetch NAME`.")


def _require(question: str, given: bool, otherwise: str, option: str) -> None:
    """Require consent, by the option or by an answer at a terminal.

    Raises:
        ValueError: Neither was given.
    """
    if given or (sys.stdin.isatty() and typer.confirm(question)):
        return
    msg = f"{otherwise}: {option} was not given and the question was not answered with yes."
    raise ValueError(msg)


@contextmanager
def _byte_bar(title: str) -> "Iterator[DownloadProgress]":
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
