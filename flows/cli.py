"""The command line. Errors that a user can mend are sentences, not tracebacks."""

import os
import sys
import tomllib
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Column, Table

from flows.environment import set_default_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.config import NightlyConfig
    from flows.download import Progress as DownloadProgress
    from tasks.night import Plan

app = typer.Typer(
    name="recdistill",
    help="Distil, compress and register a small recommender every night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Make or fetch data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_console = Console()

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; without one, a synthetic world is used."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder that the configuration calls {data}.")
]
WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", help="Folder of everything that nights write.")
]
RunDateOption = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="The night's date. Default: today in its time zone."),
]


@app.command()
def nightly(
    config: ConfigOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = None,
    run_date: RunDateOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run, and why; run nothing.")
    ] = False,
) -> None:
    """Run one night; what is finished already is skipped."""
    resolved = _resolve(config, data, workspace)
    given = run_date.date() if run_date else resolved.run_date
    day = given or _today(resolved.events.timezone)
    from flows import nightly as flow
    from flows.console import keep_tracebacks_off_the_console

    keep_tracebacks_off_the_console()
    if plan:
        _print_plan(flow.planned(resolved, day)[0], day)
        return
    _print_summary(flow.nightly(resolved, day))


@app.command()
def recommend(
    history: Annotated[
        str, typer.Option(help="Item ids, oldest first, separated by commas; may be empty.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which history item contributed most.")
    ] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the champion what to recommend after a history."""
    resolved = _resolve(config, None, workspace)
    from flows.recommend import recommend as ask

    table = Table("rank", "item", "title", "score", *(["because of"] if explain else []))
    for row in ask(
        resolved,
        [item.strip() for item in history.split(",") if item.strip()],
        k=k,
        explain=explain,
    ):
        table.add_row(*row)
    _console.print(table)


@app.command()
def report(config: ConfigOption = None, workspace: WorkspaceOption = None) -> None:
    """Show the newest night's table, and where its report is."""
    resolved = _resolve(config, None, workspace)
    summaries = sorted(
        resolved.workspace.glob("nights/*/summary.json"), key=lambda path: path.stat().st_mtime
    )
    if not summaries:
        msg = f"No night has finished in {resolved.workspace.resolve()}. Run `recdistill nightly`."
        raise FileNotFoundError(msg)
    _print_summary(summaries[-1])


@app.command()
def up(
    config: ConfigOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = None,
    prefect_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where the Prefect server and its UI listen.")
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where the MLflow server listens.")
    ] = 5000,
) -> None:
    """Start the schedule: Prefect and MLflow on this machine only, and a worker."""
    resolved = _resolve(config, data, workspace)
    from flows import services

    with _console.status("Waiting until all services are healthy ..."):
        result = services.up(resolved, prefect_port=prefect_port, mlflow_port=mlflow_port)
    for service in result.services:
        what = "started" if service.started else "runs already"
        address = f" at {service.url}" if service.url else ""
        _print_plainly(f"{service.title}: {what}{address}, log {service.log}")
    for name in result.crashed:
        _print_plainly(f"Run {name} was found without a process and is marked as crashed.")
    zone = ZoneInfo(resolved.events.timezone)
    _print_plainly(f"Next night: {result.next_night.astimezone(zone):%Y-%m-%d %H:%M %Z}")


@app.command()
def down(config: ConfigOption = None, workspace: WorkspaceOption = None) -> None:
    """Stop what `recdistill up` started, and a night that its worker runs."""
    resolved = _resolve(config, None, workspace)
    from flows import services

    stopped = services.down(resolved.workspace)
    _print_plainly(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


@data_app.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Folder to write, or to extend.")],
    days: Annotated[int, typer.Option(min=1, help="Days that a new world begins with.")] = 30,
    through: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Last day. Default: yesterday, UTC."),
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Users on the first day.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Items on the first day.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds make equal worlds.")] = 0,
    allow_repeats: Annotated[
        bool, typer.Option("--allow-repeats", help="Users may have an item again; faster.")
    ] = False,
) -> None:
    """Write a synthetic world with a known truth, or extend one by the days that it lacks."""
    from rich.progress import Progress

    from recsys_core.data.synthetic import WorldConfig, write_world

    last = through.date() if through else _today("UTC") - timedelta(days=1)
    sizes = {"n_users": users, "n_items": items}
    world = WorldConfig(
        seed=seed,
        allow_repeats=allow_repeats,
        **{name: size for name, size in sizes.items() if size is not None},
    )
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task("days", total=1.0)
        write_world(
            out,
            world,
            first_day=last - timedelta(days=days - 1),
            through=last,
            progress=lambda share, text: bars.update(bar, completed=share, description=text),
        )
    _console.print(f"The synthetic world in {out} reaches through {last}.")


@data_app.command()
def fetch(
    name: Annotated[
        str | None, typer.Argument(help="Data set to fetch; without one, they are listed.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder to make. Default: data/NAME.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Archive that was downloaded already; the network is not used."),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the owner's terms without a question.")
    ] = False,
) -> None:
    """Fetch a public data set by name, check it and make it readable for a night."""
    if name is None:
        _print_datasets()
        return
    from flows.datasets import find_dataset, licence_notice
    from flows.fetch import fetch as bring
    from flows.fetch import how_to_read, is_there

    dataset = find_dataset(name)
    folder = to or Path("data") / name
    if is_there(dataset, folder):
        _print_plainly(f"{folder} holds {name} already: nothing to do.")
    else:
        _print_plainly(licence_notice(dataset))
        _require_consent(accept_licence)
        with _byte_bar(f"{name}.zip") as progress:
            bring(dataset, folder, archive=file, progress=progress)
        _print_plainly(f"{folder} holds {name} now; its checksum is right.")
    _print_plainly(how_to_read(folder))


def main() -> None:
    """Run the command line; the entry point `recdistill`."""
    try:
        app()
    except Exception as error:
        if os.environ.get("RECDISTILL_DEBUG"):
            raise
        Console(stderr=True).print(f"[bold red]Error:[/] {_escaped(error)}", soft_wrap=True)
        sys.exit(1)


def _print_plainly(line: str) -> None:
    """A line that is neither wrapped nor coloured, so that addresses and paths can be copied."""
    _console.print(line, soft_wrap=True, markup=False, highlight=False)


def _print_datasets() -> None:
    from flows.datasets import DATASETS

    for dataset in DATASETS:
        size = f"{dataset.size_bytes / 1_000_000:,.1f} MB"
        _print_plainly(f"{dataset.name:<16} {size:>8}  {dataset.title}")
        _print_plainly(f"{'':<27}licence: {dataset.licence_url}")
    _print_plainly("Fetch one with `recdistill data fetch NAME`.")


def _require_consent(accepted: bool) -> None:
    if accepted or (sys.stdin.isatty() and typer.confirm("Do you accept these terms?")):
        return
    msg = (
        "The owner's terms were not accepted; nothing was done. Accept them with --accept-licence."
    )
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


def _escaped(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))


def _resolve(config: Path | None, data: Path | None, workspace: Path | None) -> "NightlyConfig":
    """The configuration, with the environment set for what is imported next."""
    if data and not config:
        msg = "--data fills in {data} of a configuration file; give --config too."
        raise ValueError(msg)
    set_default_environment(workspace or _configured_workspace(config))
    from flows.config import NightlyConfig, load_config

    resolved = load_config(config, data=data) if config else NightlyConfig()
    return resolved.model_copy(update={"workspace": workspace}) if workspace else resolved


def _configured_workspace(config: Path | None) -> Path:
    """The workspace that a file names; whatever is wrong with the file is said later."""
    try:
        fields = tomllib.loads(config.read_text(encoding="utf-8")) if config else {}
    except (OSError, ValueError):
        fields = {}
    return Path(str(fields.get("workspace", "workspace")))


def _print_plan(plans: "list[Plan]", day: date) -> None:
    table = Table("stage", "what", "why", title=f"Night of {day}")
    for step in plans:
        table.add_row(step.stage, "[bold]run[/]" if step.runs else "skip", step.reason)
    _console.print(table)


def _print_summary(path: Path) -> None:
    from recsys_core.artifacts import read_json

    night = read_json(path)
    table = Table(
        "model",
        *(Column(name, justify="right") for name in ("NDCG@10", "Recall@10", "size", "p50")),
        title=f"Night of {night['run_date']}: {night['n_cases']:,} {night['split']} events",
    )
    for row in night["models"]:
        size = "" if row["size_bytes"] is None else f"{row['size_bytes'] / 1000:,.0f} kB"
        table.add_row(
            row["model"],
            f"{row['ndcg_at_10']:.4f}",
            f"{row['recall_at_10']:.4f}",
            size,
            f"{row['latency_ms_p50']:.2f} ms",
        )
    _console.print(table)
    registered = night["registered"]
    ran = f"{len(night['ran'])} stages ran, {len(night['skipped'])} were finished before"
    lines = {
        "stages": ran if night["ran"] else "All were finished before: nothing had to run again",
        "verdict": f"{'promoted' if night['passed'] else 'refused'}. {night['verdict']}",
        "model": f"models:/{registered['name']}/{registered['version']}",
        "MLflow": registered["tracking_uri"],
        "report": night["report"],
        "query": "recdistill recommend --history ID,ID,...",
    }
    for name, text in lines.items():
        _console.print(f"{name:<8} {text}", soft_wrap=True, highlight=False)


def _today(timezone: str) -> date:
    return datetime.now(ZoneInfo(timezone)).date()
