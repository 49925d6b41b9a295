"""The files of a served model's folder."""

import bz2
import json
from collections.abc import Sequence
from pathlib import Path

from recsys_core.serving.scorer import FORMAT, ID_FILES

SERVED_FILES = ("model.onnx", ID_FILES[FORMAT], "config.json")
"""Files of the format that is written today."""


def write_item_ids(folder: Path, item_ids: Sequence[str]) -> None:
    """Write the ids of the compact rows, from row 1."""
    text = json.dumps(list(item_ids), ensure_ascii=False, separators=(",", ":"))
    (folder / ID_FILES[FORMAT]).write_bytes(bz2.compress(text.encode()))


def served_files(folder: Path) -> tuple[Path, Path, Path]:
    """The graph, the item ids and the configuration, in any format that can be read."""
    config = folder / "config.json"
    name = ID_FILES[json.loads(config.read_text(encoding="utf-8"))["format"]]
    return folder / "model.onnx", folder / name, config


def served_bytes(folder: Path) -> int:
    """Size on disk of the files that serving needs.

    Raises:
        FileNotFoundError: One of the files is missing.
    """
    return sum(path.stat().st_size for path in served_files(folder))
