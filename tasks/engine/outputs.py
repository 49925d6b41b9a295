"""The stage outputs in a workspace, of all nights."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys_core.artifacts import MANIFEST, is_finished, read_manifest


@dataclass(frozen=True)
class Output:
    """A finished stage output.

    Attributes:
        folder: `stages/<stage>/<key>`.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Stage and key, as `stage/key`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def finished_at(self) -> float:
        """Time of its manifest, in seconds since 1970."""
        return (self.folder / MANIFEST).stat().st_mtime

    @property
    def inputs(self) -> set[str]:
        """Keys of the outputs that its stage read, and other inputs that are text."""
        given = read_manifest(self.folder)["parts"]["inputs"].values()
        return {value for value in given if isinstance(value, str)}

    @property
    def files(self) -> list[Path]:
        """The files that its manifest lists."""
        return [self.folder / name for name in read_manifest(self.folder)["files"]]


def outputs(workspace: Path) -> list[Output]:
    """All finished outputs, sorted by stage and key."""
    folders = (path.parent for path in sorted(workspace.glob(f"stages/*/*/{MANIFEST}")))
    return [Output(folder) for folder in folders if is_finished(folder)]


def remains(workspace: Path) -> Iterator[Path]:
    """Folders of stages that did not finish: partial outputs and scratch."""
    for folder in sorted(workspace.glob("stages/*/*")):
        if folder.is_dir() and not is_finished(folder):
            yield folder


def bytes_of(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(
        (Path(root) / name).stat().st_size for root, _, names in os.walk(folder) for name in names
    )
