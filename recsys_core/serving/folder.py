"""The served model's folder: which files it is made of."""

from pathlib import Path

SERVED_FILES = ("model.onnx", "item_ids.json", "config.json")


def served_bytes(folder: Path) -> int:
    """Size on disk of all that serving needs."""
    return sum((folder / name).stat().st_size for name in SERVED_FILES)
