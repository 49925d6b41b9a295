"""Rows on their way come back as they went, whether they waited in memory or on the disk."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys_core.data.io.spool import Spool

ROWS = pl.DataFrame(
    {
        "bucket": [1, 0, 1, 1, 0],
        "user_id": ["u", "v", "w", None, "u"],
        "event_type": ["view", "buy", None, "view", "view"],
    }
)


@pytest.mark.parametrize("rows_in_memory", [1, 3, 100])
@pytest.mark.parametrize("kind", [pl.String, pl.Int8])
def test_rows_come_back_by_key_in_order(
    tmp_path: Path, rows_in_memory: int, kind: type[pl.DataType]
) -> None:
    rows = ROWS
    if kind is pl.Int8:
        rows = rows.with_columns(event_type=pl.Series([1, 2, None, 1, 1], dtype=pl.Int8))
    spool = Spool(tmp_path / "spool", rows.schema, key="bucket", rows_in_memory=rows_in_memory)
    for start in range(rows.height):
        spool.append(rows[start : start + 1])
    assert (spool.keys, spool.n_rows, spool.rows_of(1)) == ([0, 1], 5, 3)
    for key in (0, 1):
        expected = rows.filter(pl.col("bucket") == key)
        assert_frame_equal(spool.scan(key).collect(), expected)
        assert_frame_equal(pl.concat(spool.pieces(key)), expected)
    assert spool.scan(7).collect().schema == rows.schema
    spool.discard()
    assert not (tmp_path / "spool").exists()
