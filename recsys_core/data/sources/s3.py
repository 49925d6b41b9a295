# pyright: basic
# (pyarrow has no types)
"""Listing, looking up and copying objects on S3, with the keys that Arrow finds in the environment.

Arrow gives no ETag, so an object is known by its size and the time of its last change only: one
that is replaced by another of the same size within the same second counts as unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from recsys_core.data.sources.config import S3Config, SourceError

PREFIX = "s3://"
_COPY_BYTES = 8 << 20


@dataclass(frozen=True)
class S3Object:
    """An object.

    Attributes:
        location: Its s3:// URI.
        n_bytes: Its size.
        stamp: Size and time of the last change.
    """

    location: str
    n_bytes: int
    stamp: str


def list_objects(folder: str, config: S3Config) -> list[S3Object]:
    """All objects below a folder's URI.

    Raises:
        SourceError: There is no such folder, or S3 does not answer or refuses access.
    """
    with _errors_of(folder):
        store = _store(config)
        selector = fs.FileSelector(folder.removeprefix(PREFIX), recursive=True)
        return [_described(info) for info in store.get_file_info(selector) if info.is_file]


def look_up(location: str, config: S3Config) -> S3Object | None:
    """The object with this URI; None if there is none.

    Raises:
        SourceError: S3 does not answer or refuses access.
    """
    with _errors_of(location):
        info = _store(config).get_file_info(location.removeprefix(PREFIX))
        return _described(info) if info.is_file else None


def copy_object(location: str, target: Path, config: S3Config) -> None:
    """Write an object's bytes to a file.

    Raises:
        SourceError: S3 does not answer or refuses access, or the connection broke.
    """
    with _errors_of(location):
        with (
            _store(config).open_input_stream(location.removeprefix(PREFIX)) as stream,
            target.open("wb") as file,
        ):
            while piece := stream.read(_COPY_BYTES):
                file.write(piece)


def _store(config: S3Config) -> fs.S3FileSystem:
    scheme, _, address = (config.endpoint or "").rpartition("://")
    return fs.S3FileSystem(
        region=config.region,
        endpoint_override=address or None,
        scheme=scheme or "https",
        connect_timeout=10,
        request_timeout=60,
    )


def _described(info: fs.FileInfo) -> S3Object:
    return S3Object(f"{PREFIX}{info.path}", info.size, f"{info.size}:{info.mtime_ns}")


@contextmanager
def _errors_of(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = (
            f"{location} can't be read ({str(error).splitlines()[0]}). Check bucket and path, "
            "source.s3, and the keys in the environment."
        )
        raise SourceError(msg) from error
