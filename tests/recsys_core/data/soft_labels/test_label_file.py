"""Files of labels: what is read, and what is refused with its row and field."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.data.soft_labels.label_file import LabelFileError, read_label_file

ROWS = [
    {"user_id": "a", "n_events": 2, "item_ids": ["x", "y"], "scores": [3, 1.5]},
    {"user_id": "b", "n_events": 1, "item_ids": ["z"], "scores": [0.0]},
    {"user_id": "a", "n_events": 1, "item_ids": ["y", "z"], "scores": [2, 2]},
]


def _write(folder: Path, rows: list[Any], kind: str = "jsonl") -> Path:
    path = folder / f"labels.{kind}"
    if kind == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        pl.DataFrame(rows, infer_schema_length=None, strict=False).write_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_are_read(tmp_path: Path, kind: str) -> None:
    table = read_label_file(_write(tmp_path, ROWS, kind))
    assert table.select("row", "user_id", "position").rows() == [
        (1, "a", 1),
        (2, "b", 0),
        (3, "a", 0),
    ]
    assert table["item_ids"].to_list() == [["x", "y"], ["z"], ["y", "z"]]
    assert table["scores"].to_list() == [[3.0, 1.5], [0.0], [2.0, 2.0]]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_whole_numbers_are_ids(tmp_path: Path, kind: str) -> None:
    rows = [{"user_id": 7, "position": 0, "item_ids": [12, 3], "last_item_id": 5}]
    table = read_label_file(_write(tmp_path, rows, kind))
    assert table.select("user_id", "last_item_id").row(0) == ("7", "5")
    assert table["item_ids"].to_list() == [["12", "3"]]


def _changed(row: int, **values: Any) -> list[dict[str, Any]]:
    rows = [dict(one) for one in ROWS]
    rows[row] |= values
    return rows


BOTH = {
    "not finite": (_changed(1, scores=[1e999]), "row 2, |number|finite"),
    "rising": (
        _changed(2, scores=[1, 2]),
        r"row 3, scores: found \[1.0, 2.0\].* change their sign",
    ),
    "too few scores": (_changed(0, scores=[1]), "row 1, scores: found 1 for 2 item_ids"),
    "too large": (_changed(0, scores=[3000.7, 1]), "row 1, scores: .* Subtract a constant"),
    "twice": (_changed(1, user_id="a", n_events=2), "rows? 1 and 2, position: found two labels"),
    "no rows": ([], "holds no rows|needs"),
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("rows", "sentence"), BOTH.values(), ids=BOTH)
def test_what_would_be_misread_is_refused(
    tmp_path: Path, kind: str, rows: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(LabelFileError, match=sentence):
        read_label_file(_write(tmp_path, rows, kind))


OF_FIELDS = {
    "misspelt": ({"user_id": "a", "n_events": 1, "item_ids": [], "score": []}, "the field 'score'"),
    "no place": ({"user_id": "a", "item_ids": ["x"]}, "either position or n_events"),
    "both places": (
        {"user_id": "a", "n_events": 1, "position": 0, "item_ids": ["x"]},
        "position or n_events, not both",
    ),
    "no user": ({"n_events": 1, "item_ids": ["x"]}, "needs the field user_id"),
    "normaliser alone": (
        {"user_id": "a", "n_events": 1, "item_ids": ["x"], "log_normalizer": 2.0},
        "log_normalizer but no scores",
    ),
    "text as number": ({"user_id": "a", "n_events": "1", "item_ids": ["x"]}, "row 1.*, n_events"),
    "no list": ({"user_id": "a", "n_events": 1, "item_ids": "x"}, "row 1.*, item_ids"),
    "number of a user": ({"user_id": 1.5, "n_events": 1, "item_ids": ["x"]}, "row 1.*, user_id"),
    "small normaliser": (
        {
            "user_id": "a",
            "n_events": 1,
            "item_ids": ["x", "y"],
            "scores": [1.0, 1.0],
            "log_normalizer": 1.5,
        },
        "row 1, log_normalizer: found 1.5, less than the list alone, 1.69315",
    ),
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("row", "sentence"), OF_FIELDS.values(), ids=OF_FIELDS)
def test_wrong_fields_are_refused(
    tmp_path: Path, kind: str, row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(LabelFileError, match=sentence):
        read_label_file(_write(tmp_path, [row], kind))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"user_id": "a", "n_events": 1, "item_ids": ["x"], "scores": [NaN]}', "NaN is no JSON"),
        ('{"user_id": "a", "n_ev', "row 2, the line: found"),
        ('["a", 1]', "row 2, the line: found .* expected a JSON object"),
        ('{"user_id": "a", "n_events": 9, "item_ids": ["x"]}', "row 2, scores: found it in some"),
        ('{"user_id": "a", "n_events": true, "item_ids": [], "scores": []}', "row 2, n_events"),
        ('{"user_id": "a", "n_events": 9, "item_ids": [null], "scores": [1]}', "row 2, item_ids"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = _write(tmp_path, ROWS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(LabelFileError, match=sentence):
        read_label_file(path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scores": [[3.0, float("nan")], [0.0], [2.0, 2.0]]}, "row 1, scores: .* finite numbers"),
        ({"scores": [[3.0, None], [0.0], [2.0, 2.0]]}, "row 1, scores: found no value"),
        ({"user_id": ["a", None, "c"]}, "row 2, user_id: found no value"),
        ({"item_ids": [["x", "y"], None, ["z"]]}, "row 2, item_ids: found no value"),
    ],
)
def test_missing_values_of_parquet_are_refused(
    tmp_path: Path, values: dict[str, list[Any]], sentence: str
) -> None:
    path = _write(tmp_path, ROWS, "parquet")
    columns = [pl.Series(name, column) for name, column in values.items()]
    pl.read_parquet(path).with_columns(columns).write_parquet(path)
    with pytest.raises(LabelFileError, match=sentence):
        read_label_file(path)


def test_what_is_no_file_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError, match="is no file"):
        read_label_file(tmp_path / "none.parquet")
    (tmp_path / "text.csv").write_text("user_id,item_ids\n")
    with pytest.raises(LabelFileError, match="is no Parquet file"):
        read_label_file(tmp_path / "text.csv")
