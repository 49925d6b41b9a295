"""Finding source files on this machine and on S3, and telling whether they have changed."""

import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import translate
from pathlib import Path, PurePosixPath

from recsys_core.artifacts import digest, sha256_file
from recsys_core.data.sources.config import SourceConfig, SourceError, SourceFile
from recsys_core.data.sources.s3 import PREFIX, copy_object, list_objects, look_up

SUFFIXES = {
    "csv": (".csv", ".csv.gz", ".csv.zst", ".dat"),
    "jsonl": tuple(
        f".{name}{packed}" for name in ("jsonl", "ndjson", "json") for packed in ("", ".gz", ".zst")
    ),
    "parquet": (".parquet",),
}
_WILDCARDS = frozenset("*?[")
_SHOWN_NAMES = 5


def find_sources(config: SourceConfig) -> list[SourceFile]:
    r"""All configured files: interactions first, then items, each sorted by name.

    Raises:
        SourceError: A path leads to no file, or S3 does not answer.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "monday.csv").write_text("user_id,item_id,timestamp\n")
        ...     files = find_sources(SourceConfig(interactions=folder))
        >>> [file.name for file in files]
        ['interactions/monday.csv']
    """
    config = config.resolved()
    places = [("interactions", str(config.interactions))]
    if config.items is not None:
        places.append(("items", str(config.items)))
    return [source for table, place in places for source in _find(table, place, config)]


def source_fingerprint(
    config: SourceConfig, known: Mapping[str, tuple[str, str]] | None = None
) -> dict[str, str]:
    """The fingerprint of each source file, by name.

    Args:
        config: Settings of the sources.
        known: Stamp and fingerprint by name, from earlier nights. A file with the same stamp is
            not read again.

    Raises:
        SourceError: A path leads to no file, or a file can't be read.
    """
    before = known or {}
    return {
        file.name: before[file.name][1]
        if file.name in before and before[file.name][0] == file.stamp
        else fingerprint(file)
        for file in find_sources(config)
    }


def fingerprint(source: SourceFile) -> str:
    """Identifies a file's content: SHA-256 of its bytes; on S3 a digest of size and time only.

    Raises:
        SourceError: The file can't be read.
    """
    if source.location.startswith(PREFIX):
        return digest(source.stamp)
    try:
        return sha256_file(Path(source.location))
    except OSError as error:
        msg = f"{source.location} can't be read ({error.strerror}). Check file and permissions."
        raise SourceError(msg) from error


@contextmanager
def local_file(
    source: SourceFile, config: SourceConfig, scratch: Path
) -> Generator[Path, None, None]:
    """Give a path on this machine: of the file itself, or of a copy that is deleted afterwards.

    Args:
        source: The file.
        config: Settings of the sources, for S3.
        scratch: Folder for the copy.

    Raises:
        SourceError: The file can't be read, or has changed since it was found.
    """
    if not source.location.startswith(PREFIX):
        yield Path(source.location)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / f"{digest(source.name)}-{PurePosixPath(source.location).name}"
    try:
        current = look_up(source.location, config.s3)
        if current is None or current.stamp != source.stamp:
            msg = f"{source.location} changed while the night was running. Run the night again."
            raise SourceError(msg)
        copy_object(source.location, copy, config.s3)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def exists(location: str, config: SourceConfig) -> bool:
    """Whether a file exists, on this machine or on S3.

    Raises:
        SourceError: S3 does not answer.
    """
    if not location.startswith(PREFIX):
        return Path(location).exists()
    return look_up(location, config.s3) is not None


def _find(table: str, place: str, config: SourceConfig) -> list[SourceFile]:
    suffixes = SUFFIXES[config.format]
    remote = place.startswith(PREFIX)
    files = list(_remote(table, place, config) if remote else _local(table, place))
    chosen = [file for file in files if file.location.endswith(suffixes)]
    if not chosen:
        others = ", ".join(file.name.rpartition("/")[2] for file in files[:_SHOWN_NAMES])
        msg = (
            f"No {table} found: {place} holds no {' or '.join(suffixes)} file (there: "
            f"{others or 'nothing'}). Put the export there, or change source.{table} or "
            "source.format."
        )
        raise SourceError(msg)
    return chosen


def _local(table: str, place: str) -> Iterator[SourceFile]:
    path = Path(place)
    if path.is_file():
        root, candidates = path.parent, [path]
    elif path.is_dir():
        root, candidates = path, _walk(path)
    elif _WILDCARDS.isdisjoint(place):
        what = "is no regular file" if path.exists() else "does not exist"
        msg = f"{place} {what}. Set source.{table} to a file, a folder or a glob."
        raise SourceError(msg)
    else:
        root = Path(*path.parts[: _first_wildcard(path.parts)])
        candidates = root.glob(str(path.relative_to(root)))
    for candidate in sorted(candidates):
        inside = candidate.relative_to(root)
        if candidate.is_file() and _visible(inside.parts):
            state = candidate.stat()
            stamp = f"{state.st_size}:{state.st_mtime_ns}"
            yield SourceFile(table, f"{table}/{inside.as_posix()}", str(candidate), stamp)


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder. Linked folders are followed, but each folder is visited once.

    Arrow's file systems, which read S3 here, would follow a circle of links and list each file
    many times.
    """
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        state = os.stat(root)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        yield from (Path(root, name) for name in files)


def _remote(table: str, place: str, config: SourceConfig) -> Iterator[SourceFile]:
    parts = place.removeprefix(PREFIX).rstrip("/").split("/")
    single = look_up(place, config.s3) if _WILDCARDS.isdisjoint(place) else None
    folder = "/".join(parts[: _first_wildcard(parts)])
    root = folder if single is None else folder.rpartition("/")[0]
    objects = list_objects(f"{PREFIX}{folder}", config.s3) if single is None else [single]
    pattern = re.compile(translate("/".join(parts)))
    for candidate in sorted(objects, key=lambda candidate: candidate.location):
        path = candidate.location.removeprefix(PREFIX)
        inside = path.removeprefix(f"{root}/")
        wanted = _WILDCARDS.isdisjoint(place) or pattern.match(path)
        if wanted and _visible(inside.split("/")):
            yield SourceFile(table, f"{table}/{inside}", candidate.location, candidate.stamp)


def _first_wildcard(parts: tuple[str, ...] | list[str]) -> int:
    with_wildcards = (at for at, part in enumerate(parts) if _WILDCARDS & set(part))
    return next(with_wildcards, len(parts))


def _visible(parts: tuple[str, ...] | list[str]) -> bool:
    """Whether no part begins with a dot or an underscore, as drafts of other tools do."""
    return not any(part.startswith((".", "_")) for part in parts)
