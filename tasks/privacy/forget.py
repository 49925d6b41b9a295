"""Erasure of a user from the lake, its old versions and every stage output.

The user's traces are first recorded in `erasures/`, under a hash with the lake's own salt. So if an
erasure is interrupted, the next attempt completes it and its record.
"""

import secrets
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys_core.artifacts import discard, draft_of, read_json, read_manifest, revise, write_json
from recsys_core.data.lake.retention import vacuum
from recsys_core.data.lake.tables import Lake
from recsys_core.data.privacy.denylist import add_to_denylist
from recsys_core.data.privacy.erasure import erase, find_traces
from recsys_core.data.soft_labels.description import SoftLabelDescription
from recsys_core.settings import Progress, silent
from tasks.engine.outputs import Output, outputs, remains
from tasks.registry.store import Registry, RegistryConfig, Version, student_name


@dataclass(frozen=True)
class UserTraces:
    """The traces of a user in a workspace, at present or before the erasure.

    Attributes:
        interactions: Number of interactions in the lake.
        quarantine: Number of rows in the quarantine: the user's, and those whose text contains
            the id.
        first_event: Time of the oldest interaction, ISO; None if there is none.
        sources: Names of the files that brought the rows; the files themselves are not changed.
        outputs: Number of rows by stage output, as `stage/key`.
        models: Registered versions that were trained on the user, as `name/version (alias)`.
    """

    interactions: int = 0
    quarantine: int = 0
    first_event: str | None = None
    sources: tuple[str, ...] = ()
    outputs: tuple[tuple[str, int], ...] = ()
    models: tuple[str, ...] = ()

    def in_words(self) -> list[str]:
        """The traces as lines of text."""
        if self == UserTraces():
            return ["The workspace holds nothing about this user."]
        since = f", the oldest of {self.first_event}" if self.first_event else ""
        lines = [
            f"Lake: {self.interactions:,} interactions{since}; {self.quarantine:,} rows of the "
            "quarantine."
        ]
        lines += [f"Stage output {output}: {rows:,} rows." for output, rows in self.outputs]
        lines += [
            f"Model {model} was trained on this user; it stays. Delete the version once a later "
            "night has replaced it."
            for model in self.models
        ]
        if self.sources:
            lines.append(
                f"Source files that hold the user, and stay: {', '.join(self.sources)}. Nights "
                "refuse these rows from now on."
            )
        return lines


def find_user(workspace: Path, user_id: str, *, name: str, registry: RegistryConfig) -> UserTraces:
    """Find a user's traces; nothing is changed.

    Args:
        workspace: Folder of everything that nights write.
        user_id: As the lake spells it: hashed where it holds hashed ids.
        name: Prefix of the registered names.
        registry: Where models are registered.
    """
    traces = find_traces(workspace / "lake", user_id)
    rows = {output.name: _rows_of(output, user_id) for output in outputs(workspace)}
    return UserTraces(
        interactions=traces.interactions,
        quarantine=traces.quarantine + traces.unclear,
        first_event=None if traces.first_event is None else traces.first_event.isoformat(),
        sources=traces.sources,
        outputs=tuple((output, n_rows) for output, n_rows in rows.items() if n_rows),
        models=_carriers(workspace, name, registry, traces.first_event),
    )


def forget_user(
    workspace: Path,
    user_id: str,
    *,
    name: str,
    registry: RegistryConfig,
    today: date,
    progress: Progress = silent,
) -> Path:
    """Erase a user, and put the id on the denylist so that no file brings the user back.

    If interrupted, run it again; it resumes. No night may run meanwhile.

    Args:
        workspace: Folder of everything that nights write.
        user_id: As the lake spells it: hashed where it holds hashed ids.
        name: Prefix of the registered names.
        registry: Where models are registered.
        today: Date to record.
        progress: Called before each step.

    Returns:
        Path of the record of the user's traces, including those that earlier attempts erased.
    """
    progress(0.0, "searching")
    denylist = add_to_denylist(
        workspace / "lake", [user_id], today=today, new_salt=secrets.token_bytes(32)
    )
    record = workspace / "erasures" / f"{denylist.hash_of(user_id)}.json"
    found = find_user(workspace, user_id, name=name, registry=registry)
    found = _merge_attempts(_recorded(record), found)
    _write(record, found, today, done=False)
    progress(0.3, "erasing from the lake")
    lake = Lake(workspace / "lake")
    erase(lake, user_id)
    vacuum(workspace / "lake", days=0)
    for folder in remains(workspace):
        discard(folder)
    finished = outputs(workspace)
    for number, output in enumerate(finished):
        progress(0.6 + 0.4 * number / len(finished), f"erasing from {output.name}")
        _erase_from(output, user_id)
    _write(record, found, today, done=True)
    progress(1.0, "done")
    return record


def _tables(output: Output) -> list[Path]:
    """The output's tables with a column `user_id`."""
    return [
        path
        for path in output.files
        if path.suffix == ".parquet" and "user_id" in pl.read_parquet_schema(path)
    ]


def _rows_of(output: Output, user_id: str) -> int:
    mine = pl.col("user_id") == user_id
    return sum(
        pl.scan_parquet(path, glob=False).select(mine.sum()).collect().item()
        for path in _tables(output)
    )


def _erase_from(output: Output, user_id: str) -> None:
    mine = pl.col("user_id").eq_missing(pl.lit(user_id))
    for path in _tables(output):
        table = pl.scan_parquet(path, glob=False)
        if table.select(mine.any()).collect().item():
            table.filter(~mine).sink_parquet(draft_of(path), compression="zstd")
            revise(output.folder, path.relative_to(output.folder).as_posix())
    _correct_description(output.folder)


def _correct_description(folder: Path) -> None:
    """Let `soft_labels.json` say the checksums that the manifest says of erased files."""
    path = folder / SoftLabelDescription.file_name
    if not path.exists():
        return
    before = SoftLabelDescription.load(folder)
    files = {name: facts["sha256"] for name, facts in read_manifest(folder)["files"].items()}
    after = before.after_revision(folder, files)
    if after != before:
        write_json(draft_of(path), after.model_dump(mode="json"))
        revise(folder, path.name)


def _carriers(
    workspace: Path, name: str, registry: RegistryConfig, first_event: datetime | None
) -> tuple[str, ...]:
    """Versions trained beyond the user's first event, and those of unknown training period."""
    no_registry = registry.tracking_uri is None and not (workspace / "mlflow.db").exists()
    if first_event is None or no_registry:
        return ()
    model = student_name(name)
    return tuple(
        f"{model}/{version.number}{_aliases(version)}"
        for version in Registry(workspace, registry).versions(model)
        if _reaches(version.tags.get("trained_through", "None"), first_event)
    )


def _reaches(trained_through: str, moment: datetime) -> bool:
    return trained_through == "None" or datetime.fromisoformat(trained_through) > moment


def _aliases(version: Version) -> str:
    return f" ({', '.join(version.aliases)})" if version.aliases else ""


def _recorded(record: Path) -> UserTraces:
    if not record.exists():
        return UserTraces()
    facts = read_json(record)["found"]
    return UserTraces(
        **{
            **facts,
            "sources": tuple(facts["sources"]),
            "outputs": tuple((output, rows) for output, rows in facts["outputs"]),
            "models": tuple(facts["models"]),
        }
    )


def _merge_attempts(before: UserTraces, now: UserTraces) -> UserTraces:
    """The traces of two attempts: the second no longer finds what the first has erased."""
    firsts = [first for first in (before.first_event, now.first_event) if first is not None]
    return UserTraces(
        interactions=max(before.interactions, now.interactions),
        quarantine=max(before.quarantine, now.quarantine),
        first_event=min(firsts, default=None),
        sources=tuple(sorted({*before.sources, *now.sources})),
        outputs=tuple(sorted({**dict(before.outputs), **dict(now.outputs)}.items())),
        models=tuple(dict.fromkeys([*before.models, *now.models])),
    )


def _write(record: Path, found: UserTraces, today: date, *, done: bool) -> None:
    facts: dict[str, Any] = {"user": record.stem, "date": today.isoformat(), "done": done}
    write_json(record, {**facts, "found": asdict(found)})
