"""The command line. Errors are shown as messages; RECDISTILL_DEBUG=1 shows tracebacks."""

import json
import os
import sys
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Column, Table

from flows.cli.data import data_app
from flows.cli.options import ConfigOption, DataOption, JsonOption, WorkspaceOption, resolve
from flows.cli.output import console, say, today
from flows.cli.soft_labels import labels_app

if TYPE_CHECKING:
    from flows.pipeline import Outcome

app = typer.Typer(
    name="recdistill",
    help="Distil, compress and register a small recommender every night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data_app, name="data")
app.add_typer(labels_app, name="soft-labels")

RunDateOption = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="The night's date. Default: today in the data's zone."),
]


@app.command()
def nightly(
    config: ConfigOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = None,
    run_date: RunDateOption = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Show which stages would run, and why; run nothing."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan, or the results, as JSON.")
    ] = False,
) -> None:
    """Run one night. Stages that have finished are skipped."""
    resolved = resolve(config, data, workspace)
    given = run_date.date() if run_date else resolved.run_date
    day = given or today(resolved.events.timezone)
    from flows import nightly as flow
    from flows.cli.log_format import keep_tracebacks_off_the_console

    keep_tracebacks_off_the_console()
    if plan:
        _print_plan(flow.plan(resolved, day), day, as_json=as_json)
        return
    summary = flow.nightly(resolved, day)
    if as_json:
        typer.echo(summary.read_text(encoding="utf-8"))
    else:
        _print_summary(summary)


@app.command()
def recommend(
    history: Annotated[
        str, typer.Option(help="Item ids, oldest first, separated by commas. May be empty.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of items.")] = 10,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show which history item contributed most."),
    ] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Recommend items with the champion, given a user's history."""
    resolved = resolve(config, None, workspace)
    from flows.cli.recommend import recommend as ask

    table = Table("rank", "item", "title", "score", *(["because of"] if explain else []))
    for row in ask(
        resolved,
        [item.strip() for item in history.split(",") if item.strip()],
        k=k,
        explain=explain,
    ):
        table.add_row(*row)
    console.print(table)


@app.command()
def report(
    as_json: JsonOption = False, config: ConfigOption = None, workspace: WorkspaceOption = None
) -> None:
    """Show the results of the last night and the path of its report."""
    resolved = resolve(config, None, workspace)
    summaries = sorted(
        resolved.workspace.glob("nights/*/summary.json"), key=lambda path: path.stat().st_mtime
    )
    if not summaries:
        msg = f"No night has finished in {resolved.workspace.resolve()}. Run `recdistill nightly`."
        raise FileNotFoundError(msg)
    if as_json:
        typer.echo(summaries[-1].read_text(encoding="utf-8"))
        return
    _print_summary(summaries[-1])


@app.command()
def up(
    config: ConfigOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = None,
    prefect_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Prefect server and its UI.")
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the MLflow server.")
    ] = 5000,
    cron: Annotated[
        str | None,
        typer.Option(help="Cron expression of the nightly start. Default: '30 2 * * *'."),
    ] = None,
) -> None:
    """Start the schedule: a Prefect server, an MLflow server and a worker, on 127.0.0.1 only."""
    resolved = resolve(config, data, workspace)
    from flows.services import stack as services

    with console.status("Waiting until all services are healthy ..."):
        result = services.up(
            resolved, prefect_port=prefect_port, mlflow_port=mlflow_port, cron=cron
        )
    for service in result.services:
        what = "started" if service.started else "runs already"
        address = f" at {service.url}" if service.url else ""
        say(f"{service.title}: {what}{address}, log {service.log}")
    for name in result.crashed:
        say(f"Run {name} was found without a process and is marked as crashed.")
    zone = ZoneInfo(resolved.events.timezone)
    say(f"Next night: {result.next_night.astimezone(zone):%Y-%m-%d %H:%M %Z}")


@app.command()
def down(config: ConfigOption = None, workspace: WorkspaceOption = None) -> None:
    """Stop the servers and the worker that `recdistill up` started, and a night that is running."""
    resolved = resolve(config, None, workspace)
    from flows.services import stack as services

    stopped = services.down(resolved.workspace)
    say(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def main() -> None:
    """Run the command line; the entry point `recdistill`."""
    try:
        app()
    except Exception as error:
        if os.environ.get("RECDISTILL_DEBUG"):
            raise
        Console(stderr=True).print(f"[bold red]Error:[/] {_escaped(error)}", soft_wrap=True)
        sys.exit(1)


def _escaped(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))


def _print_plan(outcome: "Outcome", day: date, *, as_json: bool) -> None:
    if as_json:
        stages = [
            {"stage": step.stage, "key": step.artifact.key, "runs": step.runs, "why": step.reason}
            for step in outcome
        ]
        typer.echo(json.dumps({"run_date": day.isoformat(), "stages": stages}, indent=2))
        return
    table = Table("stage", "what", "why", title=f"Night of {day}")
    for decision in outcome:
        what = "[bold]run[/]" if decision.runs else "skip"
        table.add_row(decision.stage, what, _escaped(decision.reason))
    console.print(table)


def _print_summary(path: Path) -> None:
    from tasks.contracts.night import NightSummary

    night = NightSummary.load(path.parent)
    table = Table(
        "model",
        *(Column(name, justify="right") for name in ("NDCG@10", "Recall@10", "size", "p50")),
        title=f"Night of {night.run_date}: {night.n_cases:,} {night.split} events",
    )
    for row in night.models:
        table.add_row(
            row.model,
            f"{row.ndcg_at_10:.4f}",
            f"{row.recall_at_10:.4f}",
            "" if row.size_bytes is None else f"{row.size_bytes / 1000:,.0f} kB",
            f"{row.latency_ms_p50:.2f} ms",
        )
    console.print(table)
    registered = night.registered
    ran = f"{len(night.ran)} stages ran, {len(night.skipped)} were finished before"
    lines = {
        "stages": ran if night.ran else "All were finished before: nothing had to run again",
        "verdict": f"{'promoted' if night.passed else 'refused'}. {night.verdict}",
        "model": f"models:/{registered.name}/{registered.version}",
        "MLflow": registered.tracking_uri,
        "report": night.report,
        "query": "recdistill recommend --history ID,ID,...",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", soft_wrap=True, highlight=False)
