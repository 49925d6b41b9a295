"""A night: its facts, and the manifest that pins them."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

from recsys_core.artifacts import digest, read_json, write_json
from recsys_core.json_file import JsonFile
from recsys_core.settings import Settings


class ReadAgain(Settings):
    """Files that a backfill reads again although they have not changed.

    Attributes:
        files: Names of the files.
        lake_version: Version of the interactions before the backfill. It gives a second backfill of
            the same files another key.
    """

    files: tuple[str, ...]
    lake_version: int


@dataclass(frozen=True)
class Night:
    """The facts of a night. They do not change while it runs.

    Attributes:
        workspace: Folder of everything that nights write.
        name: Prefix of the registered names: `name` + "-student".
        run_date: The night's date. Only events before it are used.
        config: The resolved configuration, as JSON.
        champion: Version of the champion at the first start of the night; None: there was none.
        sources: The source files and the fingerprint of each.
        device: "cpu" or "cuda".
        read_again: What a backfill reads again; None in a night.
        label_store: SHA-256 of the `soft_labels.json` in `soft_labels.store` when the run began;
            None: there is no such file.
    """

    workspace: Path
    name: str
    run_date: date
    config: dict[str, Any]
    champion: int | None
    sources: dict[str, str]
    device: str = "cpu"
    read_again: ReadAgain | None = None
    label_store: str | None = None

    @property
    def lake(self) -> Path:
        """Folder of the Delta tables."""
        return self.workspace / "lake"


class NightManifest(JsonFile):
    """The pinned facts of a night. Its folder follows from date and configuration.

    Attributes:
        run_date: As in `Night`, and so are the others.
        name: See `Night`.
        champion: See `Night`.
        sources: See `Night`.
        device: See `Night`.
        config: See `Night`.
    """

    file_name = "night.json"

    run_date: date
    name: str
    champion: int | None
    sources: dict[str, str]
    device: str
    config: dict[str, Any]

    @staticmethod
    def folder(workspace: Path, run_date: date, config: dict[str, Any]) -> Path:
        """The folder of the night with this date and configuration."""
        return workspace / "nights" / f"{run_date.isoformat()}-{digest(config)}"

    @classmethod
    def pinned(cls, workspace: Path, run_date: date, config: dict[str, Any]) -> Self | None:
        """The facts that this night pinned; None if it has never started."""
        folder = cls.folder(workspace, run_date, config)
        return cls.load(folder) if (folder / cls.file_name).exists() else None

    @classmethod
    def pin(cls, night: Night) -> None:
        """Write the facts of a night."""
        cls(
            run_date=night.run_date,
            name=night.name,
            champion=night.champion,
            sources=night.sources,
            device=night.device,
            config=night.config,
        ).save(cls.folder(night.workspace, night.run_date, night.config))


class WorkspaceOwnedError(ValueError):
    """The workspace belongs to another name or another source."""


def claim_workspace(workspace: Path, *, name: str, source: dict[str, Any]) -> None:
    """Record the name and source that a workspace belongs to, so that no lake mixes two sources.

    Args:
        workspace: Folder of everything that nights write.
        name: Prefix of the registered names.
        source: Identity of the source: format and paths.

    Raises:
        WorkspaceOwnedError: It belongs to another name or source.
    """
    path = workspace / "owner.json"
    claimed = {"name": name, **source}
    if not path.exists():
        write_json(path, claimed)
    elif (owner := read_json(path)) != claimed:
        msg = (
            f"The workspace {workspace} belongs to {_listed(owner)}; this night is for "
            f"{_listed(claimed)}. Set another workspace (or --workspace), so that their data do "
            f"not mix. If the same data have only moved, delete {path}."
        )
        raise WorkspaceOwnedError(msg)


def _listed(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
