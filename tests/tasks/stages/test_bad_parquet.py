"""Malformed Parquet files."""

from pathlib import Path

import polars as pl
import pytest

from tests.bad_input import (
    GOOD,
    HEADER,
    QuarantineCase,
    RefusalCase,
    Settings,
    assert_quarantined,
    assert_refused,
    parquet_bytes,
)

PARQUET: Settings = {"format": "parquet"}


def _damaged(content: bytes) -> bytes:
    middle = content.index(b"PAR1") + 4
    return content[:middle] + bytes(60) + content[middle + 60 :]


QUARANTINED = {
    "nulls in Parquet": QuarantineCase(
        parquet_bytes(user_id=[None, "v"]), {"missing user_id": 1}, 1, "a.parquet", PARQUET
    ),
    "ids in a dictionary of Parquet": QuarantineCase(
        parquet_bytes(user_id=pl.Series([None, "v"], dtype=pl.Categorical)),
        {"missing user_id": 1},
        1,
        "a.parquet",
        PARQUET,
    ),
    "fractions as ids in Parquet": QuarantineCase(
        parquet_bytes(user_id=[1.5, 2.0]), {"unreadable user_id": 1}, 1, "a.parquet", PARQUET
    ),
    "text as time in Parquet": QuarantineCase(
        parquet_bytes(timestamp=["2026-01-01", "soon"]),
        {"unreadable timestamp": 1},
        1,
        "a.parquet",
        PARQUET,
    ),
}


@pytest.mark.parametrize("case", QUARANTINED.values(), ids=QUARANTINED.keys())
def test_bad_rows_are_quarantined_and_good_ones_kept(tmp_path: Path, case: QuarantineCase) -> None:
    assert_quarantined(tmp_path, case)


REFUSED = {
    "a Parquet file that ends early": RefusalCase(
        lambda at: (at / "a.parquet").write_bytes(parquet_bytes()[:-40]),
        r"a\.parquet can't be read as parquet",
        PARQUET,
    ),
    "a Parquet file with a damaged page": RefusalCase(
        lambda at: (at / "a.parquet").write_bytes(_damaged(parquet_bytes())),
        r"a\.parquet can't be read as parquet",
        PARQUET,
    ),
    "CSV called Parquet": RefusalCase(
        lambda at: (at / "a.parquet").write_text(HEADER + GOOD),
        r"a\.parquet can't be read as parquet",
        PARQUET,
    ),
    "lists for ids": RefusalCase(
        lambda at: (at / "a.parquet").write_bytes(parquet_bytes(user_id=[["u"], ["v"]])),
        r"column user_id holds List\(String\) values",
        PARQUET,
    ),
    "bytes for ids": RefusalCase(
        lambda at: (at / "a.parquet").write_bytes(parquet_bytes(user_id=[b"u", b"v"])),
        r"column user_id holds Binary values",
        PARQUET,
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_can_not_be_read_is_refused_with_a_sentence(
    tmp_path: Path, case: RefusalCase
) -> None:
    assert_refused(tmp_path, case)
