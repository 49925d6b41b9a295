import json
from pathlib import Path

import pytest

from recsys_core.serving.folder import SERVED_FILES, served_bytes, served_files, write_item_ids
from recsys_core.serving.scorer import FORMAT


@pytest.mark.parametrize("version", [1, FORMAT])
def test_only_what_is_served_counts(tmp_path: Path, version: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": version}))
    graph, item_ids, config = served_files(tmp_path)
    graph.write_bytes(b"x" * 20)
    item_ids.write_bytes(b"x" * 3)
    (tmp_path / "parity.json").write_bytes(b"x" * 100)
    assert served_bytes(tmp_path) == 20 + 3 + config.stat().st_size
    assert item_ids.name == {1: "item_ids.json", FORMAT: SERVED_FILES[1]}[version]
    graph.unlink()
    with pytest.raises(FileNotFoundError):
        served_bytes(tmp_path)


def test_the_ids_of_a_catalogue_take_few_bytes(tmp_path: Path) -> None:
    write_item_ids(tmp_path, [str(item) for item in range(1, 3001)])
    assert (tmp_path / SERVED_FILES[1]).stat().st_size < 5_000
