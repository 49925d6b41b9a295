"""Files to raw rows: quoting, broken lines, columns, and files that are no tables."""

import gzip
import os
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.schema import NOT_JSON, NOT_UTF8, UNBALANCED_QUOTES, WRONG_FIELD_COUNT
from recsys_core.data.sources.config import (
    InteractionColumns,
    ItemColumns,
    SourceConfig,
    SourceError,
    SourceFile,
)
from recsys_core.data.sources.csv import Dialect, read_csv
from recsys_core.data.sources.reader import BROKEN, LINE, ROW, read_chunks

HEADER = "user_id,item_id,timestamp\n"


def _config(**settings: object) -> SourceConfig:
    return SourceConfig.model_validate({"interactions": Path("unused"), **settings})


def _read(path: Path, config: SourceConfig, table: str = "interactions") -> pl.DataFrame:
    source = SourceFile(table, f"{table}/{path.name}", str(path), "")
    return pl.concat(read_chunks(source, path, config))


def _csv(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_quotes_separators_and_escapes_are_those_of_csv(tmp_path: Path) -> None:
    path = _csv(tmp_path, HEADER + '"a,b","say ""hi""",3\r\n\r\nx,,"5"\n')
    rows = _read(path, _config())
    assert rows.select("user_id", "item_id", "timestamp").rows() == [
        ("a,b", 'say "hi"', "3"),
        ("x", None, "5"),
    ]
    assert rows[ROW].to_list() == [1, 3]
    assert rows[BROKEN].null_count() == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('u,"i,3', UNBALANCED_QUOTES),
        ('u",i,3', UNBALANCED_QUOTES),
        ('u,"i"x,3', UNBALANCED_QUOTES),
        ("u,i", WRONG_FIELD_COUNT),
        ("u,i,3,4", WRONG_FIELD_COUNT),
        ('u,"i,3",4,5', WRONG_FIELD_COUNT),
        (b"u,\xff,3", NOT_UTF8),
    ],
)
def test_a_broken_line_costs_only_itself(tmp_path: Path, line: str | bytes, reason: str) -> None:
    broken = line if isinstance(line, bytes) else line.encode()
    path = _csv(tmp_path, HEADER.encode() + b"a,b,1\n" + broken + b"\nc,d,2\n")
    rows = _read(path, _config())
    assert rows[ROW].to_list() == [1, 2, 3]
    assert rows[BROKEN].to_list() == [None, reason, None]
    assert rows["user_id"].to_list() == ["a", None, "c"]
    assert rows[LINE].is_null().to_list() == [True, False, True]


@given(
    cells=st.lists(
        st.tuples(
            *[st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00\x01\ufffd"))] * 3
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_a_csv_writer_wrote_comes_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    written = pl.DataFrame(cells, schema=["user_id", "item_id", "timestamp"], orient="row")
    written.write_csv(path, quote_style="always")
    rows = _read(path, _config())
    assert rows[BROKEN].null_count() == rows.height
    assert rows.select("user_id", "item_id", "timestamp").rows() == cells


def test_other_separators_a_byte_order_mark_and_gzip(tmp_path: Path) -> None:
    plain = b"\xef\xbb\xbfuser_id|item_id|timestamp\na|b|1\n"
    path = _csv(tmp_path, gzip.compress(plain), "a.csv.gz")
    rows = _read(path, _config(separator="|"))
    assert rows.select("user_id", "item_id", "timestamp").rows() == [("a", "b", "1")]


def test_columns_come_under_standard_names_and_optional_ones_where_they_are(
    tmp_path: Path,
) -> None:
    path = _csv(tmp_path, "who,what,when,event_type\na,b,1,view\n")
    columns = InteractionColumns(user_id="who", item_id="what", timestamp="when")
    rows = _read(path, _config(columns=columns))
    assert [name for name in rows.columns if not name.startswith("__")] == [
        "user_id",
        "item_id",
        "timestamp",
        "event_type",
    ]


def test_items_bring_their_further_columns_along(tmp_path: Path) -> None:
    path = _csv(tmp_path, "item_id,name,price\n1,Tea,2.5\n")
    rows = _read(path, _config(item_columns=ItemColumns(title="name")), "items")
    assert rows.drop(ROW, BROKEN, LINE).to_dicts() == [
        {"item_id": "1", "title": "Tea", "price": "2.5"}
    ]


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    assert _read(_csv(tmp_path, HEADER), _config()).is_empty()


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    path = _csv(tmp_path, content)
    with pytest.raises(SourceError, match=r"a\.csv is empty .*Export the file again, or remove"):
        _read(path, _config())


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = _csv(tmp_path, "user,item_id,timestamp\na,b,1\n")
    with pytest.raises(SourceError) as caught:
        _read(path, _config())
    assert str(caught.value) == (
        f"{path} has no column 'user_id' for user_id (its columns: user, item_id, timestamp). "
        "Set source.columns.user_id to the right one."
    )


def test_an_optional_column_must_be_there_once_it_is_named(tmp_path: Path) -> None:
    path = _csv(tmp_path, HEADER + "a,b,1\n")
    with pytest.raises(SourceError, match="has no column 'stars' for weight"):
        _read(path, _config(columns=InteractionColumns(weight="stars")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('user_id,"item_id,timestamp\n', "first line is no CSV header"),
        ("user_id,item_id,item_id\n", "the column 'item_id' twice"),
    ],
)
def test_a_bad_header_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = _csv(tmp_path, content)
    with pytest.raises(SourceError, match=message):
        _read(path, _config())


@pytest.mark.parametrize("content", [b"", b"user_id,item_id\n", b"PAR1 and no more"])
def test_bytes_that_are_not_parquet_are_refused(tmp_path: Path, content: bytes) -> None:
    path = _csv(tmp_path, content, "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet can't be read as parquet \(.*source\.form"):
        _read(path, _config(format="parquet"))


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(5000))
    path = _csv(tmp_path, whole[: len(whole) // 2], "a.csv.gz")
    with pytest.raises(SourceError, match=r"a\.csv\.gz"):
        _read(path, _config())


def test_parquet_rows_keep_their_types_and_get_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": [7, 8], "item_id": [1, 2], "timestamp": [0, 1]}).write_parquet(path)
    rows = _read(path, _config(format="parquet"))
    assert rows[ROW].to_list() == [1, 2]
    assert rows["user_id"].dtype == pl.Int64


def test_gzip_and_zstd_are_unpacked(tmp_path: Path) -> None:
    text = (HEADER + "u,i,3\n" * 5).encode()
    packed = {"a.csv.gz": gzip.compress(text), "a.csv.zst": pa.compress(text, "zstd", asbytes=True)}
    for name, content in packed.items():
        rows = _read(_csv(tmp_path, content, name), _config())
        assert rows[ROW].to_list() == [1, 2, 3, 4, 5]


def test_row_numbers_continue_over_blocks_and_blank_lines(tmp_path: Path) -> None:
    lines = [f"u{n},i,{n}" if n % 3 else "" for n in range(1, 20)]
    path = _csv(tmp_path, HEADER + "\n".join(lines))
    chunks = list(read_csv(path, Dialect(), block_bytes=7))
    assert len(chunks) > 5
    rows = pl.concat(chunks)
    assert rows[ROW].to_list() == rows["timestamp"].cast(pl.Int64).to_list()
    assert rows.height == 13


def test_parquet_comes_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": range(10), "item_id": 1, "timestamp": 1}).write_parquet(path)
    source = SourceFile("interactions", "interactions/a.parquet", str(path), "")
    chunks = list(read_chunks(source, path, _config(format="parquet"), rows_at_once=4))
    assert [chunk.height for chunk in chunks] == [4, 4, 2]
    assert pl.concat(chunks)[ROW].to_list() == list(range(1, 11))


def test_any_damaged_byte_of_parquet_is_an_error_or_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]}).write_parquet(
        path
    )
    whole = path.read_bytes()
    n_refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 7]) + whole[at + 1 :])
        try:
            _read(path, _config(format="parquet"))
        except SourceError:
            n_refused += 1
    assert len(whole) // 2 < n_refused < len(whole)


def test_only_the_wanted_columns_of_parquet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"user_id": ["u"], "item_id": ["i"], "timestamp": [1], "page": ["x" * 100]}
    pl.DataFrame(columns).write_parquet(path, compression="uncompressed", statistics=False)
    path.write_bytes(path.read_bytes().replace(b"x" * 100, b"\xff" * 100))
    assert _read(path, _config(format="parquet"))["user_id"].to_list() == ["u"]
    with pytest.raises(SourceError, match="UTF8"):
        _read(path, _config(format="parquet", columns={"event_type": "page"}))


def test_parts_of_the_path_are_columns(tmp_path: Path) -> None:
    path = _csv(tmp_path, "user_id,item_id,kind\nu,i,view\n")
    name = "interactions/date=2026-01-31/kind=buy/a.csv"
    source = SourceFile("interactions", name, str(path), "")
    config = _config(columns={"timestamp": "date", "event_type": "kind"})
    (rows,) = read_chunks(source, path, config)
    assert rows.select("timestamp", "event_type").rows() == [("2026-01-31", "view")]


def test_json_lines_are_objects_of_text(tmp_path: Path) -> None:
    lines = '{"user_id": 7, "item_id": "i", "timestamp": 1.5, "more": [1]}\n\n{"user_id": true}\n[]'
    rows = _read(_csv(tmp_path, lines, "a.jsonl"), _config(format="jsonl"))
    assert rows.select(ROW, "user_id", "item_id", "timestamp", BROKEN, LINE).rows() == [
        (1, "7", "i", "1.5", None, None),
        (3, "true", None, None, None, None),
        (4, None, None, None, NOT_JSON, "[]"),
    ]


def test_items_in_json_lines_keep_lists(tmp_path: Path) -> None:
    lines = '{"item_id": "a", "categories": ["x"], "image": [1.5, 2], "n": 1}\n{"item_id": "b"}\n'
    rows = _read(_csv(tmp_path, lines, "a.jsonl"), _config(format="jsonl"), table="items")
    assert rows.select("item_id", "categories", "image", "n").rows() == [
        ("a", ["x"], [1.5, 2.0], 1),
        ("b", None, None, None),
    ]


def test_movielens_dat_files_need_no_settings(tmp_path: Path) -> None:
    ratings = _csv(tmp_path, "1::1193::5::978300760\n1::661::x\n", "ratings.dat")
    movies = _csv(tmp_path, 'é 1::"Zoë" (1995)::A|B\n'.encode("latin-1"), "movies.dat")
    config = _config(format="movielens")
    events, items = _read(ratings, config), _read(movies, config, table="items")
    assert events.select("user_id", "item_id", "weight", "timestamp", BROKEN).rows() == [
        ("1", "1193", "5", "978300760", None),
        (None, None, None, None, WRONG_FIELD_COUNT),
    ]
    assert items.select("item_id", "title", "categories").rows() == [("é 1", '"Zoë" (1995)', "A|B")]


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ("amazon-2018", '{"reviewerID": "u", "asin": "i", "unixReviewTime": 1, "overall": 5.0}'),
        ("amazon-2023", '{"user_id": "u", "parent_asin": "i", "timestamp": 1, "rating": 5.0}'),
    ],
)
def test_amazon_reviews_need_no_settings(tmp_path: Path, release: str, line: str) -> None:
    rows = _read(_csv(tmp_path, line, "a.jsonl"), _config(format=release))
    assert rows.select("user_id", "item_id", "timestamp", "weight").rows() == [
        ("u", "i", "1", "5.0")
    ]
