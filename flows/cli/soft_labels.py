"""The commands under `recdistill soft-labels`: import, validate and inspect labels of a teacher."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.options import ConfigOption, JsonOption, WorkspaceOption, resolve
from flows.cli.output import console, numbers, say
from recsys_core.units import format_bytes

if TYPE_CHECKING:
    from recsys_core.data.soft_labels.coverage import Coverage
    from recsys_core.data.soft_labels.importing import ImportSummary

labels_app = typer.Typer(
    help="Import, validate and inspect soft labels of a teacher that was made elsewhere.",
    no_args_is_help=True,
)

StoreArgument = Annotated[Path, typer.Argument(help="Folder of the store.")]


@labels_app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="Parquet, or JSON lines (.jsonl): user_id, n_events (or position), item_ids, "
            "perhaps scores, log_normalizer, last_item_id."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the store to write.")],
    teacher: Annotated[str, typer.Option(help="Name of the teacher.")],
    trained_through: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="The teacher saw no event at or after this time, UTC. Default: unknown.",
        ),
    ] = None,
    max_items: Annotated[
        int, typer.Option(min=1, max=1000, help="Cut longer lists to this many items.")
    ] = 64,
    hashed: Annotated[
        bool,
        typer.Option(
            "--hashed",
            help="The file has the user ids of the night's histories, which are hashed already.",
        ),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Check a file of labels against the newest night's data, and write a store of what fits."""
    resolved = resolve(config, None, workspace)
    from flows.cli.label_store import import_file

    summary = import_file(
        resolved,
        file,
        out,
        teacher=teacher,
        trained_through=trained_through,
        max_items=max_items,
        is_hashed=hashed,
    )
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
        return
    _print_summary(summary, out)


@labels_app.command()
def validate(
    store: StoreArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Compare the checksums of a store, and check that it fits the newest night's data."""
    resolved = resolve(config, None, workspace)
    from flows.cli.label_store import check_store

    found = check_store(resolved, store)
    if as_json:
        typer.echo(json.dumps({"store": str(store), "valid": True, **vars(found)}, indent=2))
        return
    say(f"{store} is unchanged and fits: {_covered(found)}.")


@labels_app.command()
def inspect(
    store: StoreArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show what a store holds, of which teacher, and what it covers of the newest night's data."""
    resolved = resolve(config, None, workspace)
    from flows.cli.label_store import look

    description, found, why_not = look(resolved, store)
    bytes_per_label = description.bytes / max(1, description.rows)
    if as_json:
        facts = description.model_dump(mode="json")
        covered = None if found is None else vars(found)
        facts |= {"bytes_per_label": bytes_per_label, "coverage": covered, "no_coverage": why_not}
        typer.echo(json.dumps(facts, indent=2))
        return
    lines = {
        "layout": f"{description.layout}, {', '.join(description.columns)}",
        "teacher": description.teacher,
        "trained": f"through {description.trained_through or 'an unknown time'}",
        "width": f"{description.dim or description.top_k} "
        f"{'numbers' if description.dim else 'items'} a label, {description.n_samples} draws",
        "labels": f"{description.rows:,}, {format_bytes(description.bytes)}, "
        f"{bytes_per_label:.0f} bytes each",
        "coverage": why_not if found is None else _covered(found),
    }
    for name, text in lines.items():
        console.print(f"{name:<9} {text}", soft_wrap=True, highlight=False, markup=False)


def _covered(found: "Coverage") -> str:
    parts = {
        "users": (found.users, found.n_users),
        "positions": (found.positions, found.n_positions),
        "items": (found.items, found.n_items),
    }
    return ", ".join(f"{some:,} of {all_:,} {name}" for name, (some, all_) in parts.items())


def _print_summary(summary: "ImportSummary", out: Path) -> None:
    say(f"{out} holds {summary.labels:,} labels of the {summary.rows:,} rows of {summary.source}.")
    dropped = {
        **{f"rows {reason}": n for reason, n in summary.dropped_rows.items()},
        **summary.dropped_items,
    }
    if not dropped:
        say("Nothing was dropped.")
        return
    table = Table("dropped", *numbers("number"))
    for reason, n in dropped.items():
        table.add_row(reason, f"{n:,}")
    console.print(table)
