"""The item index only ever grows at its end."""

from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.catalogue.item_index import index_prefix_sha256, new_entries
from recsys_core.data.schema import ITEM_INDEX, TIMESTAMP

_ids = st.text(st.sampled_from("ab1 é\x00"), min_size=1, max_size=3)
_moments = st.none() | st.integers(0, 5).map(lambda day: datetime(2026, 1, 1 + day, tzinfo=UTC))
_nights = st.lists(st.lists(st.tuples(_ids, _moments), max_size=8), max_size=5)


def _candidates(rows: list[tuple[str, datetime | None]]) -> pl.DataFrame:
    schema = {"item_id": pl.String(), "first_seen": TIMESTAMP}
    return pl.DataFrame(rows, schema=schema, orient="row")


@given(nights=_nights, seed=st.randoms())
def test_no_index_ever_changes_and_ids_come_back(
    nights: list[list[tuple[str, datetime | None]]], seed: object
) -> None:
    index = pl.DataFrame(schema=ITEM_INDEX.schema)
    for rows in nights:
        before = index
        prefix = index_prefix_sha256(before["item_id"])
        added = new_entries(index, _candidates(rows))
        shuffled = list(rows)
        seed.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
        assert added.equals(new_entries(index, _candidates(shuffled)))
        index = pl.concat([index, added])
        assert index.head(before.height).equals(before)
        assert index_prefix_sha256(index["item_id"].head(before.height)) == prefix
        assert index["item_idx"].to_list() == list(range(1, index.height + 1))
        assert set(index["item_id"]) >= {item for item, _ in rows}
    assert index["item_id"].is_unique().all()


def test_new_items_are_in_order_of_appearance_then_of_id() -> None:
    first, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    rows = [("never", None), ("b", later), ("c", first), ("a", later), ("b", None), ("never", None)]
    added = new_entries(pl.DataFrame(schema=ITEM_INDEX.schema), _candidates(rows))
    assert added["item_id"].to_list() == ["c", "a", "b", "never"]


def test_the_hash_tells_how_ids_are_cut() -> None:
    assert index_prefix_sha256(["ab", "c"]) != index_prefix_sha256(["a", "bc"])
    assert index_prefix_sha256(["a", "b"]) != index_prefix_sha256(["b", "a"])
    assert index_prefix_sha256(['a","b']) != index_prefix_sha256(["a", "b"])
