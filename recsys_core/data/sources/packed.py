# pyright: basic
# (pyarrow has no types)
"""Files that may be packed, opened as the bytes that were packed."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, pa.ArrowInvalid)
"""What reading raises where a file is damaged or ends early."""


def open_packed(path: Path) -> BinaryIO:
    """Open for reading; .gz and .zst are unpacked on the way."""
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return pa.input_stream(str(path), compression="zstd")
    return path.open("rb")
