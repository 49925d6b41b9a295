"""Options that several commands share, and how they select the configuration."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from flows.config import NightlyConfig

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file. Default: a night on a synthetic world."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder that replaces {data} in the configuration.")
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="Folder for everything that nights write.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")]


def resolve(config: Path | None, data: Path | None, workspace: Path | None) -> "NightlyConfig":
    """Read the configuration, and set the environment for libraries that are imported next."""
    if data and not config:
        msg = "--data fills in {data} of a configuration file; give --config too."
        raise ValueError(msg)
    set_default_environment(workspace or _configured_workspace(config))
    from flows.config import NightlyConfig, load_config

    resolved = load_config(config, data=data) if config else NightlyConfig()
    return resolved.model_copy(update={"workspace": workspace}) if workspace else resolved


def _configured_workspace(config: Path | None) -> Path:
    """The workspace that a file names. `load_config` reports what is wrong with the file."""
    try:
        fields = tomllib.loads(config.read_text(encoding="utf-8")) if config else {}
    except (OSError, ValueError):
        fields = {}
    return Path(str(fields.get("workspace", "workspace")))
