"""Forgetting a user: out of the lake and its old versions, and out of every stage output.

What was found is written down first, in `erasures/`, under a hash that only the lake's own salt can
make again. So an attempt that was cut short goes on where it stopped and still knows all.
"""

import secrets
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys_core.artifacts import discard, draft_of, read_json, revise, write_json
from recsys_core.data.lake.retention import vacuum
from recsys_core.data.lake.tables import Lake
from recsys_core.data.privacy.denylist import add_to_denylist
from recsys_core.data.privacy.erasure import erase, find_traces
from recsys_core.settings import Progress, silent
from tasks.engine.outputs import Output, outputs, remains
from tasks.registry.store import Registry, RegistryConfig, Version, student_name


@dataclass(frozen=True)
class UserTraces:
    """What a workspace holds of a user, or held before it was erased.

    Attributes:
        interactions: Rows of the lake.
        quarantine: Rows of the lake's quarantine; also those that are nobody's and name the user.
        first_event: Time of the oldest interaction, ISO; None if there is none.
        sources: Names of the files that brought the rows. They are not ours: the rows stay there.
        outputs: Rows by stage output, as `stage/key`.
        models: Registered versions that were trained on the user, as `name/version (alias)`.
    """

    interactions: int = 0
    quarantine: int = 0
    first_event: str | None = None
    sources: tuple[str, ...] = ()
    outputs: tuple[tuple[str, int], ...] = ()
    models: tuple[str, ...] = ()

    def in_words(self) -> list[str]:
        """Lines to show."""
        if self == UserTraces():
            return ["Nothing is held of this user."]
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
    """Look for a user; nothing is changed.

    Args:
        workspace: Folder of everything that nights write.
        user_id: As the lake spells it: hashed where it holds hashed ids.
        name: Prefix of the registered names.
        registry: Where models are registered.
    """
    traces = find_traces(workspace / "lake", user_id)
    rows = {one.name: _rows_of(one, user_id) for one in outputs(workspace)}
    return UserTraces(
        interactions=traces.interactions,
        quarantine=traces.quarantine + traces.unclear,
        first_event=None if traces.first_event is None else traces.first_event.isoformat(),
        sources=traces.sources,
        outputs=tuple((output, found) for output, found in rows.items() if found),
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
    """Erase a user, and refuse the rows that files may still bring.

    Interrupted, it is to be called again. No night may run meanwhile.

    Args:
        workspace: Folder of everything that nights write.
        user_id: As the lake spells it: hashed where it holds hashed ids.
        name: Prefix of the registered names.
        registry: Where models are registered.
        today: The date to note.
        progress: Told what is done.

    Returns:
        The record of what was found, by this call or by one before it.
    """
    progress(0.0, "looking")
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
    made = outputs(workspace)
    for number, output in enumerate(made):
        progress(0.6 + 0.4 * number / len(made), f"erasing from {output.name}")
        _erase_from(output, user_id)
    _write(record, found, today, done=True)
    progress(1.0, "done")
    return record


def _tables(output: Output) -> list[Path]:
    """The tables with a row, or rows, a user."""
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


def _carriers(
    workspace: Path, name: str, registry: RegistryConfig, first_event: datetime | None
) -> tuple[str, ...]:
    """Versions whose training reached to the user's first event; those that don't say count too."""
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
    """What two attempts found; what the first has erased is not there for the second."""
    firsts = [one for one in (before.first_event, now.first_event) if one is not None]
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
