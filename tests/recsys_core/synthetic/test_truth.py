"""The truth behind a world: probabilities of the next item, and the best reachable ranking."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.synthetic.world import World, WorldConfig, bayes_ndcg_at_k, write_world
from tests.small_world import (
    FIRST,
    LAST,
    Cases,
    Truth,
    ndcg_at_10,
    read_cases,
    read_events,
    z_score,
)


def test_true_probabilities_are_a_distribution_over_what_is_in_reach(
    folder: Path, cases: Cases, truth: Truth
) -> None:
    probabilities, targets = truth
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    assert (probabilities[np.arange(len(targets)), targets] > 0).all()
    items = pl.read_parquet(folder / "items.parquet")
    released = items["available_from"].dt.date().to_numpy()
    days = np.array(cases.days, "datetime64[D]")
    not_yet = days[:, None] < released[None, :]
    assert not_yet.any()
    assert probabilities[not_yet].max() == 0
    columns = dict(zip(items["item_id"], range(items.height), strict=True))
    seen = np.zeros(probabilities.shape, np.bool_)
    for row, history in enumerate(cases.histories):
        seen[row, [columns[item_id] for item_id in history]] = True
    assert probabilities[seen].max() == 0
    assert (probabilities[~not_yet & ~seen] > 0).all()


def test_expected_ndcg_is_what_the_true_ranking_reaches(
    truth: Truth,
) -> None:
    probabilities, targets = truth
    reached = ndcg_at_10(probabilities, targets)
    assert abs(z_score(reached - bayes_ndcg_at_k(probabilities))) < 4
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    popularity = ndcg_at_10(np.where(probabilities > 0, counts, -1), targets)
    assert reached.mean() > 2 * popularity.mean()


def test_the_default_world_leaves_room_between_popularity_and_the_ceiling(tmp_path: Path) -> None:
    last = date(2026, 1, 30)
    write_world(tmp_path, WorldConfig(), first_day=FIRST, through=last)
    events = read_events(tmp_path)
    assert 95_000 < events.height < 125_000
    every = read_cases(tmp_path)
    chosen = [row for row, day in enumerate(every.days) if day == last]
    item_ids, probabilities = World.open(tmp_path).next_item_probabilities(
        [every.users[row] for row in chosen],
        [every.histories[row] for row in chosen],
        [last] * len(chosen),
    )
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    targets = np.array([columns[every.targets[row]] for row in chosen])
    ceiling = bayes_ndcg_at_k(probabilities)
    assert 0.25 < ceiling.mean() < 0.40
    assert abs(z_score(ndcg_at_10(probabilities, targets) - ceiling)) < 4
    before = events.filter(pl.col("timestamp").dt.date() < last)["item_id"]
    counts = np.bincount([columns[item] for item in before], minlength=len(columns))
    popularity = ndcg_at_10(np.where(probabilities > 0, counts, -1), targets).mean()
    assert 0.03 < popularity < 0.10


def test_history_matters_and_only_its_last_two_items_and_what_is_seen(folder: Path) -> None:
    world = World.open(folder)
    a, b, c = world.item_ids[:3]
    histories = [[a, b, c], [b, a, c], [c, b, a], []]
    _, rows = world.next_item_probabilities(["u000007"] * 4, histories, [LAST] * 4)
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    _, again = world.next_item_probabilities(["u000007"], [[a, b, c]], [LAST])
    np.testing.assert_array_equal(again[0], rows[0])


def test_days_and_users_matter(folder: Path) -> None:
    world = World.open(folder)
    _, rows = world.next_item_probabilities(
        ["u000001", "u000001", "u000002"], [[], [], []], [FIRST, LAST, LAST]
    )
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[1], rows[2])


def test_nothing_left_gives_an_empty_row(tmp_path: Path) -> None:
    config = WorldConfig(n_users=1, n_items=2, n_categories=1, new_item_share=0)
    write_world(tmp_path, config, first_day=FIRST, through=FIRST)
    ids, rows = World.open(tmp_path).next_item_probabilities(
        ["u000000", "u000000"], [["i000000", "i000001"], ["i000001"]], [FIRST, FIRST]
    )
    assert ids == ["i000000", "i000001"]
    np.testing.assert_array_equal(rows, [[0, 0], [1, 0]])


def test_no_cases_give_no_rows(folder: Path) -> None:
    ids, rows = World.open(folder).next_item_probabilities([], [], [])
    assert rows.shape == (0, len(ids))


@pytest.mark.parametrize(
    ("user", "history", "day", "message"),
    [
        ("u999999", [], LAST, "'u999999' is no id of this world.*u000294"),
        ("7", [], LAST, "'7' is no id"),
        ("u0000001", [], LAST, "'u0000001' is no id"),
        ("u000001", ["i000001", "i777777"], LAST, "'i777777' is no id"),
        ("u000001", [], LAST + timedelta(days=1), "through 2026-01-10, which excludes 2026-01-11"),
        ("u000001", [], FIRST - timedelta(days=1), "which excludes 2025-12-31"),
    ],
)
def test_unknown_ids_and_days_are_refused(
    folder: Path, user: str, history: list[str], day: date, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        World.open(folder).next_item_probabilities([user], [history], [day])


def test_unequal_lengths_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="2 users, 1 histories and 1 days"):
        World.open(folder).next_item_probabilities(["u000001", "u000002"], [[]], [LAST])


def test_expected_ndcg_by_hand() -> None:
    probabilities = np.array(
        [[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]]
    )
    discounts = 1 / np.log2([2, 3, 4, 5])
    expected = [discounts @ [0.5, 0.25, 0.25, 0], 1, discounts.mean()]
    np.testing.assert_allclose(bayes_ndcg_at_k(probabilities), expected)
    np.testing.assert_allclose(
        bayes_ndcg_at_k(probabilities, k=2), [0.5 + 0.25 * discounts[1], 1, discounts[:2].sum() / 4]
    )


@settings(max_examples=25, deadline=None)
@given(
    config=st.builds(
        WorldConfig,
        seed=st.integers(0, 2**40),
        n_users=st.integers(1, 20),
        n_items=st.integers(1, 30),
        n_categories=st.integers(1, 40),
        new_user_share=st.floats(0, 1),
        new_item_share=st.floats(0, 1),
        events_per_user_day=st.floats(0.01, 5),
        zipf_exponent=st.floats(0, 3),
        taste_concentration=st.floats(0.01, 10),
        successor_probability=st.floats(0, 0.99),
        transition_probability=st.floats(0, 0.99),
        series_length=st.integers(4, 10),
        allow_repeats=st.booleans(),
    ),
    n_days=st.integers(1, 4),
)
def test_any_tiny_world_is_sound(
    tmp_path_factory: pytest.TempPathFactory, config: WorldConfig, n_days: int
) -> None:
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder, config, first_day=FIRST, through=FIRST + timedelta(days=n_days - 1))
    cases = read_cases(folder)
    item_ids, probabilities = World.open(folder).next_item_probabilities(*cases[:3])
    items = pl.read_parquet(folder / "items.parquet")
    assert items["item_id"].to_list() == item_ids
    assert set(cases.targets) <= set(item_ids)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    happened = [columns[target] for target in cases.targets]
    assert (probabilities[np.arange(len(happened)), happened] > 0).all()
