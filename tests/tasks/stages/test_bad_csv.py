"""Malformed CSV files: broken lines, odd encodings, damaged compression."""

import gzip
from pathlib import Path

import pytest

from recsys_core.data.lake.tables import Lake
from tests.bad_input import (
    GOOD,
    HEADER,
    QuarantineCase,
    RefusalCase,
    Settings,
    assert_no_row_is_lost,
    assert_quarantined,
    assert_refused,
    ingest_folder,
    with_line,
)

KEPT = {
    "a byte order mark": ("\ufeff" + HEADER + GOOD, 9, {}),
    "lines that end as on Windows": ((HEADER + GOOD).replace("\n", "\r\n"), 9, {}),
    "lines that end as on the old Mac": ((HEADER + GOOD).replace("\n", "\r"), 9, {}),
    "blank lines": ((HEADER + GOOD).replace("\n", "\n\n \n"), 9, {}),
    "no line end at the end": ((HEADER + GOOD).rstrip("\n"), 9, {}),
    "a carriage return inside a line": (HEADER + "u\rv,i,2026-01-01,1\n", 1, {}),
    "NUL bytes in an id": (HEADER + "u\0v,i,2026-01-01,1\n", 1, {}),
    "a field of 10 MB": (HEADER + f"{'u' * 10_000_000},i,2026-01-01,1\n", 1, {}),
    "formulas": (HEADER + '=cmd()|a,"@SUM(1,2)",2026-01-01,1\n', 1, {}),
    "a replacement character that was there": (HEADER + "u\ufffd,i,2026-01-01,1\n", 1, {}),
    "another encoding": (
        (HEADER + "Zoë,Käse,2026-01-01,1\n").encode("cp1252"),
        1,
        {"encoding": "cp1252"},
    ),
    "1e3 as an id": (HEADER + "1e3,007,2026-01-01,1\n", 1, {}),
}


@pytest.mark.parametrize(("content", "kept", "given"), KEPT.values(), ids=KEPT.keys())
def test_what_is_only_unusual_is_kept(
    tmp_path: Path, content: str | bytes, kept: int, given: Settings
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "it's = ü %20.csv").write_bytes(raw)
    files = ingest_folder(tmp_path / "workspace", folder, **given)
    assert_no_row_is_lost(tmp_path / "workspace", files)
    assert files[0]["rows_kept"] == files[0]["rows_in"] == kept


def test_formulas_and_leading_zeros_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text(HEADER + '=1+1,007,2026-01-01,1\n1e3,"+49",2026-01-01,1\n')
    ingest_folder(tmp_path, folder)
    rows = Lake(tmp_path / "lake").scan("interactions").sort("arrival").collect()
    assert rows.select("user_id", "item_id").rows() == [("=1+1", "007"), ("1e3", "+49")]


def _packed(text: str) -> bytes:
    return gzip.compress(text.encode() * 1000)


def _zstd(text: str) -> bytes:
    import pyarrow as pa

    return pa.compress(text.encode() * 1000, codec="zstd", asbytes=True)


QUARANTINED = {
    "unbalanced quote": QuarantineCase(with_line('u,"i,2026-01-01,1'), {"unbalanced quotes": 1}),
    "quote inside a field": QuarantineCase(
        with_line('u,i"x",2026-01-01,1'), {"unbalanced quotes": 1}
    ),
    "quoted line break": QuarantineCase(
        with_line('u,"i\nj",2026-01-01,1'), {"unbalanced quotes": 2}
    ),
    "too few fields": QuarantineCase(with_line("u,i"), {"wrong number of fields": 1}),
    "too many fields": QuarantineCase(
        with_line("u,i,2026-01-01,1,9,9"), {"wrong number of fields": 1}
    ),
    "bytes that are no UTF-8": QuarantineCase(
        with_line(b"\xff\xfe\xfd,i,2026-01-01,1"), {"not UTF-8": 1}
    ),
    "a latin-1 letter": QuarantineCase(
        with_line("Zoë,i,2026-01-01,1".encode("latin-1")), {"not UTF-8": 1}
    ),
}


@pytest.mark.parametrize("case", QUARANTINED.values(), ids=QUARANTINED.keys())
def test_bad_rows_are_quarantined_and_good_ones_kept(tmp_path: Path, case: QuarantineCase) -> None:
    assert_quarantined(tmp_path, case)


REFUSED = {
    "an empty file": RefusalCase(lambda at: (at / "a.csv").touch(), r"a\.csv is empty \(0 bytes\)"),
    "blank lines only": RefusalCase(
        lambda at: (at / "a.csv").write_text("\n \n"), r"a\.csv is empty"
    ),
    "UTF-16": RefusalCase(
        lambda at: (at / "a.csv").write_bytes((HEADER + GOOD).encode("utf-16")),
        r"a\.csv is UTF-16\. Export it as UTF-8",
    ),
    "a column that comes twice": RefusalCase(
        lambda at: (at / "a.csv").write_text("user_id,item_id,item_id\n"),
        r"column 'item_id' twice in its header",
    ),
    "nothing but a carriage return": RefusalCase(
        lambda at: (at / "a.csv").write_text("\r"),
        r"a\.csv is empty",
    ),
    "a header with a carriage return": RefusalCase(
        lambda at: (at / "a.csv").write_bytes(b"user_id,it\rem_id,timestamp\nu,i,1\n"),
        r"no column 'item_id'",
    ),
    "a header with an open quote": RefusalCase(
        lambda at: (at / "a.csv").write_text('user_id,"item_id,timestamp\n'),
        r"first line is no CSV header",
    ),
    "a missing column": RefusalCase(
        lambda at: (at / "a.csv").write_text("user_id,sku,timestamp\n"),
        r"no column 'item_id' .*Set source\.columns\.item_id",
    ),
    "another separator": RefusalCase(
        lambda at: (at / "a.csv").write_text(HEADER.replace(",", ";")),
        r"no column 'user_id' .*its columns: user_id;item_id",
    ),
    "a gzip that ends early": RefusalCase(
        lambda at: (at / "a.csv.gz").write_bytes(_packed(HEADER + GOOD)[:-20]),
        r"a\.csv\.gz can't be read beyond \d+ bytes .*export it again",
    ),
    "a gzip that is none": RefusalCase(
        lambda at: (at / "a.csv.gz").write_text(HEADER + GOOD),
        r"a\.csv\.gz can't be read beyond 0 bytes",
    ),
    "a zstd that ends early": RefusalCase(
        lambda at: (at / "a.csv.zst").write_bytes(_zstd(HEADER + GOOD)[:-8]),
        r"a\.csv\.zst can't be read beyond",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_can_not_be_read_is_refused_with_a_sentence(
    tmp_path: Path, case: RefusalCase
) -> None:
    assert_refused(tmp_path, case)
