"""A night: where it works, the world that it sees, and what it plans to do."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from recsys_core.artifacts import digest, read_json, write_json


@dataclass(frozen=True)
class Plan:
    """What a night would do about a stage, and why."""

    stage: str
    key: str
    runs: bool
    reason: str


@dataclass
class Night:
    """The context that every stage gets.

    Attributes:
        workspace: Folder of everything that nights write.
        name: Prefix of the registered names: `name` + "-student".
        run_date: The night's date; only what happened before it exists.
        config: The resolved configuration, as JSON.
        champion: Version of the champion when the night first began, None if there was none.
        device: "cpu" or "cuda".
        planning: Compute keys and fill `plans`, but run nothing.
    """

    workspace: Path
    name: str
    run_date: date
    config: dict[str, Any]
    champion: int | None
    device: str = "cpu"
    planning: bool = False
    plans: list[Plan] = field(default_factory=list)

    @property
    def lake(self) -> Path:
        """Folder of the Delta tables."""
        return self.workspace / "lake"

    @property
    def manifest_path(self) -> Path:
        """The night manifest: run date and configuration decide its name."""
        return manifest_path(self.workspace, self.run_date, self.config)


def manifest_path(workspace: Path, run_date: date, config: dict[str, Any]) -> Path:
    """Where the manifest of the night with this date and configuration lies."""
    return workspace / "nights" / f"{run_date.isoformat()}-{digest(config)}" / "night.json"


def recorded_champion(path: Path) -> int | None:
    """The champion's version in an existing night manifest."""
    return read_json(path)["champion"]


def write_night_manifest(night: Night) -> None:
    """Pin the world that this night sees, once: a resumed or repeated night finds it unchanged."""
    if not night.manifest_path.exists():
        write_json(
            night.manifest_path,
            {
                "run_date": night.run_date.isoformat(),
                "name": night.name,
                "champion": night.champion,
                "device": night.device,
                "config": night.config,
            },
        )
