"""The files of a served model's folder."""

from pathlib import Path

SERVED_FILES = ("model.onnx", "item_ids.json", "config.json")


def served_bytes(folder: Path) -> int:
    """Size on disk of the files that serving needs."""
    return sum((folder / name).stat().st_size for name in SERVED_FILES)
