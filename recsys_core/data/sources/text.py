# pyright: basic
# (pyarrow has no types)
"""Lines of text files, compressed or not, in pieces of bounded size."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
import pyarrow as pa

from recsys_core.data.sources.config import SourceError

LINE, NUMBER, UNDECODED = "__line", "__number", "__undecoded"
BLOCK_BYTES = 32 << 20
_LONGEST_LINE_BYTES = 512 << 20
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, pa.ArrowInvalid)


def read_lines(
    path: Path, encoding: str, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[pl.DataFrame]:
    """Lines that are not blank.

    Args:
        path: A text file; .gz and .zst are decompressed.
        encoding: Encoding of the text, one in which the line feed is the byte 10.
        block_bytes: Bytes that are read at once.

    Yields:
        `__number` (number of the line, from 1), `__line` (without its line end), `__undecoded`
        (whether some bytes can't be decoded; they are shown as U+FFFD).

    Raises:
        SourceError: The file is empty, is UTF-16, ends early, or holds a line of over 512 MB.
    """
    n_before, n_lines = 0, 0
    for block in _blocks(path, block_bytes):
        lines = _lines_of(block, encoding)
        numbered = lines.with_columns(
            pl.int_range(n_before + 1, n_before + 1 + pl.len()).alias(NUMBER)
        )
        n_before += lines.height
        stated = numbered.filter(pl.col(LINE).str.contains(r"\S"))
        n_lines += stated.height
        if not stated.is_empty():
            yield stated.select(NUMBER, LINE, UNDECODED)
    if not n_lines:
        msg = (
            f"{path} is empty ({path.stat().st_size} bytes): it has not even a header. "
            "Export the file again, or remove it."
        )
        raise SourceError(msg)


def _lines_of(block: bytes, encoding: str) -> pl.DataFrame:
    try:
        text, undecoded = block.decode(encoding), pl.lit(value=False)
    except UnicodeDecodeError:
        text = block.decode(encoding, errors="replace")
        undecoded = pl.col(LINE).str.contains("\ufffd", literal=True)
    if "\n" not in text and "\r" in text.rstrip("\r"):
        text = text.replace("\r", "\n")  # line ends of the old Mac OS
    lines = pl.Series(LINE, [text.removesuffix("\n")]).str.split("\n").explode()
    return pl.DataFrame(lines).select(
        pl.col(LINE).str.strip_chars_end("\r"), undecoded.alias(UNDECODED)
    )


def _blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    """The file's bytes, cut at line ends."""
    rest, first = b"", True
    for piece in _pieces(path, block_bytes):
        block = rest + piece
        if first:
            block, first = _without_mark(path, block), False
        whole, end, rest = block.rpartition(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            msg = (
                f"{path} holds a line of over {_LONGEST_LINE_BYTES >> 20} MB: it is hardly the "
                "text file that it should be. Export the file again, or correct source.format."
            )
            raise SourceError(msg)
        if end:
            yield whole + end
    if rest:
        yield rest


def _pieces(path: Path, block_bytes: int) -> Iterator[bytes]:
    n_bytes = 0
    try:
        with _open(path) as stream:
            while piece := stream.read(block_bytes):
                n_bytes += len(piece)
                yield piece
    except _DAMAGE as error:
        msg = (
            f"{path} can't be read beyond {n_bytes} bytes of its text ({error}). "
            "The file is damaged or incomplete: export it again."
        )
        raise SourceError(msg) from error


def _without_mark(path: Path, block: bytes) -> bytes:
    if block.startswith(_UTF16_BOMS):
        msg = f"{path} is UTF-16. Export it as UTF-8, or set source.encoding to what it is."
        raise SourceError(msg)
    return block.removeprefix(_UTF8_BOM)


def _open(path: Path) -> BinaryIO:
    """Open for reading; .gz and .zst are decompressed on the way."""
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return pa.input_stream(str(path), compression="zstd")
    return path.open("rb")
