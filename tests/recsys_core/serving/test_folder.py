from pathlib import Path

import pytest

from recsys_core.serving.folder import SERVED_FILES, served_bytes


def test_only_what_is_served_counts(tmp_path: Path) -> None:
    for size, name in enumerate(SERVED_FILES, start=1):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "parity.json").write_bytes(b"x" * 100)
    assert served_bytes(tmp_path) == 1 + 2 + 3
    (tmp_path / SERVED_FILES[0]).unlink()
    with pytest.raises(FileNotFoundError):
        served_bytes(tmp_path)
