"""Where a text is found below a folder, inside of compressed tables too."""

from pathlib import Path

import polars as pl


def traces(folder: Path, text: str) -> list[str]:
    """Names of the files that hold a text: in their name, their bytes, or a table's values."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (text in path.name or _holds(path, text))
    ]


def _holds(path: Path, text: str) -> bool:
    if text.encode() in path.read_bytes():
        return True
    if path.suffix == ".parquet":
        rows = pl.read_parquet(path, hive_partitioning=False)
    elif path.suffix == ".arrow":
        rows = pl.read_ipc(path)
    else:
        return False
    return any(text in str(value) for row in rows.iter_rows() for value in row)
