"""Tiny worlds in the form of the stage outputs."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.targets import PLAIN_EVENTS

Users = dict[str, tuple[list[int], int, int]]


@pytest.fixture
def write_bucket(tmp_path: Path) -> Callable[..., Path]:
    """Write histories of user → (item_idx, train_end, validation_end) into a bucket file."""

    def write(users: Users, name: str = "bucket-000.parquet") -> Path:
        schema = {
            "user_id": pl.String,
            "item_idx": pl.List(pl.Int32),
            "train_end": pl.Int32,
            "validation_end": pl.Int32,
        }
        rows = [(user, *facts) for user, facts in users.items()]
        table = pl.DataFrame(rows, schema=schema, orient="row").with_columns(*PLAIN_EVENTS)
        table.write_parquet(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def catalogue() -> Callable[..., pl.DataFrame]:
    """Items 1 … n with these training interactions; `inactive` ones are no candidates."""

    def make(train_count: list[int], inactive: tuple[int, ...] = ()) -> pl.DataFrame:
        item_idx = pl.Series(range(1, len(train_count) + 1), dtype=pl.Int32)
        active = ~item_idx.is_in(list(inactive))
        return pl.DataFrame(
            {
                "item_idx": item_idx,
                "candidate_validation": active,
                "candidate_test": active,
                "train_count": pl.Series(train_count, dtype=pl.Int64),
            }
        )

    return make
