"""Typed JSON files: a round trip, and messages that name file and field."""

from pathlib import Path

import pytest

from recsys_core.artifacts import Artifact, write_json
from recsys_core.json_file import JsonFile


class Totals(JsonFile):
    file_name = "totals.json"

    n_users: int
    shares: tuple[float, ...] = ()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    totals = Totals(n_users=3, shares=(0.1, 1 / 3))
    totals.save(tmp_path)
    assert Totals.load(tmp_path) == totals
    assert Totals.load(Artifact("count", "key", tmp_path)) == totals


@pytest.mark.parametrize(
    ("content", "field"),
    [({}, "n_users"), ({"n_users": "many"}, "n_users"), ({"n_users": 1, "n_items": 2}, "n_items")],
)
def test_a_file_of_another_form_names_the_field(
    tmp_path: Path, content: dict[str, object], field: str
) -> None:
    write_json(tmp_path / "totals.json", content)
    with pytest.raises(ValueError, match=rf"totals\.json: {field}: .*run the night again"):
        Totals.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no file 'totals\.json'"):
        Totals.load(Artifact("count", "key", tmp_path))
