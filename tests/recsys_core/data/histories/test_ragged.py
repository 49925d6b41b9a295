"""Lists laid out flat."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.histories.ragged import Ragged


@given(st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=6))
def test_rows_and_positions_give_the_lists_back(lists: list[list[int]]) -> None:
    flat = Ragged.of(pl.Series(lists, dtype=pl.List(pl.Int32)))
    rebuilt = [[] for _ in lists]
    for value, row, position in zip(flat.values, flat.rows, flat.positions, strict=True):
        assert position == len(rebuilt[row])
        rebuilt[row].append(value.item())
    assert rebuilt == lists
    assert flat.lengths.tolist() == [len(values) for values in lists]
    assert flat.offsets[-1] == len(flat.values)
