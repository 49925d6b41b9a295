"""Stage outputs: folders of immutable files whose manifest is written last.

A folder without `manifest.json` is no output, so a kill at any moment leaves either a whole
artifact or none. The manifest is also the only cache. Its key is a hash of everything that the
content depends on, so an artifact with an unchanged key is not computed again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_DRAFT = ".draft"  # what a kill may leave of a file that was being written
_KEY_LENGTH = 16
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A stage's output: `folder` is valid only once its manifest is there.

    Attributes:
        stage: Name of the stage that writes it.
        key: Hash of everything the content depends on.
        folder: Where its files are.
    """

    stage: str
    key: str
    folder: Path

    def file(self, name: str) -> Path:
        """Path of one of the artifact's files.

        Raises:
            FileNotFoundError: There is no such file.
        """
        path = self.folder / name
        if not path.exists():
            msg = f"Artifact {self.stage}/{self.key} has no file {name!r} in {self.folder}."
            raise FileNotFoundError(msg)
        return path

    @property
    def summary(self) -> dict[str, Any]:
        """The figures that the stage reported, as recorded in the manifest."""
        return read_manifest(self.folder)["summary"]


def digest(value: object) -> str:
    """Short stable hash of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    checksum = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            checksum.update(piece)
    return checksum.hexdigest()


def draft_of(path: Path) -> Path:
    """Where a file's new content is written before it takes the file's place."""
    return path.with_name(f".{path.name}{_DRAFT}")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Write a file as a whole: readers see the old file or the new one, never a part.

    The draft takes the file's place when the block ends without an exception. A draft that a kill
    leaves behind is no part of an artifact, and the next one overwrites it.

    Args:
        path: The file to write; its folder exists.

    Yields:
        The path to write the new content to.
    """
    draft = draft_of(path)
    yield draft
    draft.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write JSON as a whole, see `replacing`, and on the disk before it counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: The file is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is not valid JSON ({error}). Delete it and run the night again."
        raise ValueError(msg) from error


def publish(artifact: Artifact, parts: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Turn a folder of finished files into an artifact by writing its manifest.

    Args:
        artifact: The folder, its stage and its key.
        parts: Inputs of the key, kept so that a later plan can say what changed.
        summary: Figures worth showing; JSON-serialisable.
    """
    files = {
        str(path.relative_to(artifact.folder)): {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(artifact.folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and path.suffix != _DRAFT
    }
    manifest = {
        "stage": artifact.stage,
        "key": artifact.key,
        "parts": dict(parts),
        "summary": dict(summary),
        "files": files,
    }
    write_json(artifact.folder / MANIFEST, manifest)


def revise(folder: Path, name: str) -> None:
    """Replace a file of a finished artifact by its draft; the artifact keeps its key and its age.

    The manifest changes first: after a kill in between the artifact counts as damaged, and revising
    again repairs it.

    Args:
        folder: The artifact's.
        name: The file; its new content is in `draft_of` its path.
    """
    manifest, path = read_manifest(folder), folder / MANIFEST
    draft, written = draft_of(folder / name), path.stat()
    manifest["files"][name] = {"sha256": sha256_file(draft), "bytes": draft.stat().st_size}
    write_json(path, manifest)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    draft.replace(folder / name)


def discard(folder: Path) -> None:
    """Delete an artifact or its remains; the manifest first, so that a kill leaves no artifact."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished artifact.

    Raises:
        FileNotFoundError: The stage has not finished there.
    """
    path = folder / MANIFEST
    if not path.exists():
        msg = f"{folder} holds no finished output (no {MANIFEST}); run the night to make it."
        raise FileNotFoundError(msg)
    return read_json(path)


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole artifact: a manifest, and every file at its recorded size."""
    if not (folder / MANIFEST).exists():
        return False
    files = read_manifest(folder)["files"]
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == facts["bytes"]
        for name, facts in files.items()
    )


def damaged_files(folder: Path) -> list[str]:
    """Names of the files whose bytes no longer match the manifest."""
    files = read_manifest(folder)["files"]
    return [
        name
        for name, facts in files.items()
        if not (folder / name).is_file() or sha256_file(folder / name) != facts["sha256"]
    ]
