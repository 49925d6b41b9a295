"""A day against the trailing days: every figure by hand, and what passes as an ordinary day."""

from datetime import date, timedelta
from math import log2, sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from recsys_core.data.drift.day_profile import (
    FEWEST_ROWS,
    DayProfile,
    aligned_counts,
    chance_distance,
    compare,
    jensen_shannon_distance,
    largest_change,
    lost_kinds,
    new_item_share,
    popularity_bins,
    profile_day,
    volume,
)
from recsys_core.synthetic.world import WorldConfig, write_world

FRIDAY = date(2026, 1, 9)


def _profile(day: date, items: dict[int, int], *, events: dict[str, int], users: int) -> DayProfile:
    counted = pl.DataFrame({"item": list(items), "rows": list(items.values())})
    return DayProfile(day, sum(items.values()), users, events, counted)


def test_a_day_is_counted() -> None:
    rows = pl.LazyFrame(
        {
            "user_id": ["u", "u", "v", "w"],
            "item_id": ["a", "b", "a", "a"],
            "event_type": ["view", "buy", "view", "view"],
        }
    )
    found = profile_day(rows, FRIDAY)
    assert (found.day, found.n_rows, found.n_users) == (FRIDAY, 4, 3)
    assert found.events == {"buy": 1, "view": 3}
    assert sorted(found.items["rows"]) == [1, 3]


def test_counts_of_days_are_aligned_by_item() -> None:
    days = [
        _profile(FRIDAY, {7: 2, 3: 1}, events={}, users=1),
        _profile(FRIDAY, {3: 5, 9: 4}, events={}, users=1),
    ]
    assert aligned_counts(days).tolist() == [[1, 5], [2, 0], [0, 4]]


@pytest.mark.parametrize(
    ("trailing", "usual"),
    [
        ({1: 1000, 2: 300, 3: 500}, 500),  # the median
        ({1: 1000, 2: 300, 3: 500, 4: 700}, 600),  # between the two in the middle
        ({1: 1000, 2: 300, 3: 500, 7: 120}, 120),  # a week ago it was as quiet as now
        ({1: 100, 2: 130, 3: 150, 7: 9000}, 140),  # a week ago was another world
    ],
)
def test_usual_is_the_median_or_the_same_weekday(trailing: dict[int, int], usual: float) -> None:
    days = {FRIDAY - timedelta(days=back): rows for back, rows in trailing.items()}
    figure = volume(FRIDAY, 110, days)
    assert figure is not None
    assert figure == (110, usual, 110 / usual)


def test_small_numbers_are_not_judged_unless_one_side_is_large() -> None:
    few = {FRIDAY - timedelta(days=back): 50 for back in (1, 2, 3)}
    assert volume(FRIDAY, 99, few) is None
    assert volume(FRIDAY, FEWEST_ROWS, few) == (100, 50, 2)
    assert volume(FRIDAY, 1, dict.fromkeys(few, 100)) == (1, 100, 0.01)


def test_new_item_share_counts_rows_not_items() -> None:
    day, pool = np.array([6, 3, 1]), np.array([10, 0, 0])
    assert new_item_share(day, pool) == pytest.approx(4 / 10)
    assert new_item_share(day, np.ones(3, int)) == 0


def test_event_mix_is_the_largest_change_of_a_share() -> None:
    # Shares 5/10, 4/10, 1/10 against 8/10, 2/10, 0.
    assert largest_change(np.array([5, 4, 1]), np.array([80, 20, 0])) == pytest.approx(0.3)


def test_a_kind_is_lost_below_a_tenth_of_what_is_expected_if_that_is_enough() -> None:
    # Of 1000 rows 800, 180 and 20 are expected, the last just enough to be missed.
    pool = np.array([8000, 1800, 200])
    assert lost_kinds(np.array([1000, 0, 0]), pool) == [1, 2]
    assert lost_kinds(np.array([980, 18, 2]), pool) == []
    assert lost_kinds(np.array([982, 17, 1]), pool) == [1, 2]
    assert lost_kinds(np.array([999, 0, 0]), pool) == [1]


def test_popularity_is_compared_on_the_popular_the_rest_and_the_unknown() -> None:
    pool = np.array([5, 0, 9, 1, 2, 5])
    day = np.array([1, 7, 2, 3, 4, 5])
    binned_day, binned_pool = popularity_bins(day, pool, n_popular=2)
    assert binned_pool.tolist() == [9, 5, 8, 0]  # of the two fives the first one
    assert binned_day.tolist() == [2, 1, 12, 7]
    binned_day, binned_pool = popularity_bins(day, pool, n_popular=99)
    assert binned_pool.tolist() == [9, 5, 5, 2, 1, 0, 0]
    assert binned_day.tolist() == [2, 1, 5, 4, 3, 0, 7]


def test_jensen_shannon_distance_by_hand() -> None:
    assert jensen_shannon_distance([1, 2, 3], [2, 4, 6]) == 0
    assert jensen_shannon_distance([1, 0], [0, 5]) == 1
    # Against (3/4, 1/4): KL of (1, 0) is log2 4/3, that of (1/2, 1/2) is 1/2 log2 2/3 + 1/2.
    expected = sqrt((log2(4 / 3) + 0.5 * log2(2 / 3) + 0.5) / 2)
    assert jensen_shannon_distance([1, 0], [1, 1]) == pytest.approx(expected, rel=1e-12)


COUNTS = st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any)


@given(COUNTS, COUNTS)
def test_jensen_shannon_distance_is_that_of_scipy(p: list[int], q: list[int]) -> None:
    found = jensen_shannon_distance(p, q)
    assert 0 <= found <= 1
    assert found == jensen_shannon_distance(q, p)
    assert found**2 == pytest.approx(np.nan_to_num(jensenshannon(p, q, base=2)) ** 2, abs=1e-9)


def test_nearly_equal_counts_are_at_no_distance() -> None:
    """Rounding makes the divergence of these counts negative."""
    counts = [34121221, 17775288, 74740169, 53604120]
    assert jensen_shannon_distance(counts, [*counts[:3], counts[3] + 2]) == 0


@pytest.mark.parametrize(("moved", "distance"), [(0.1, 0.23), (0.5, 0.56)])
def test_what_a_distance_means(moved: float, distance: float) -> None:
    """The description of validation.bounds.popularity_shift says this."""
    usual = np.append(np.full(10, 0.1), 0)
    found = jensen_shannon_distance((1 - moved) * usual + np.append(np.zeros(10), moved), usual)
    assert round(found, 2) == distance


def test_chance_alone_makes_a_distance_near_its_theory() -> None:
    n_bins, n_rows = 100, 1000
    pool = np.full(n_bins, 10_000)
    day = np.full(n_bins, n_rows // n_bins)
    theory = sqrt((n_bins - 1) / (8 * n_rows * np.log(2)))
    assert chance_distance(day, pool) == pytest.approx(theory, rel=0.1)
    assert chance_distance(day, pool) == chance_distance(day, pool)


def test_the_comparison_of_a_day_by_hand() -> None:
    before = [FRIDAY - timedelta(days=back) for back in (3, 2, 1)]
    trailing = [
        _profile(day, {1: 100, 2: 100}, events={"view": 150, "buy": 50}, users=110)
        for day in before
    ]
    today = _profile(FRIDAY, {1: 80, 3: 20}, events={"view": 90, "rate": 10}, users=220)
    found = compare(today, trailing)
    assert found.trailing == tuple(before)
    assert found.rows == (100, 200, 0.5)
    assert found.users == (220, 110, 2.0)
    assert found.new_item_share == (0.2, 0, 0.2)
    assert found.event_mix is not None
    assert found.event_mix == pytest.approx((0.25, 0, 0.25))  # buy: from 1/4 to nothing
    assert found.lost_events == ("buy",)
    assert found.new_events == ("rate",)
    shift = jensen_shannon_distance([80, 0, 20], [300, 300, 0])
    assert found.popularity_shift is not None
    assert found.popularity_shift.value == pytest.approx(shift)
    assert found.popularity_shift.usual > 0  # what chance alone makes of 100 rows
    assert found.shifts == {**dict.fromkeys(before, 0.0), FRIDAY: pytest.approx(shift)}


def test_shares_of_a_few_rows_are_not_judged() -> None:
    trailing = [
        _profile(FRIDAY - timedelta(days=back), {1: 500}, events={"view": 500}, users=200)
        for back in (3, 2, 1)
    ]
    found = compare(_profile(FRIDAY, {2: 99}, events={"buy": 99}, users=9), trailing)
    assert found.rows == (99, 500, 0.198)
    assert found.users == (9, 200, 0.045)
    assert (found.new_item_share, found.event_mix, found.popularity_shift) == (None, None, None)
    assert found.lost_events == ("view",)


@pytest.mark.parametrize(
    "config",
    [
        WorldConfig(n_users=200, n_items=80),
        WorldConfig(n_users=1000, new_user_share=0.1, new_item_share=0.05),
    ],
    ids=["tiny", "growing"],
)
def test_ordinary_days_of_the_synthetic_world_are_usual(
    tmp_path: Path, config: WorldConfig
) -> None:
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(18)]
    write_world(tmp_path, config, first_day=days[0], through=days[-1])
    profiles = [
        profile_day(pl.scan_parquet(tmp_path / "interactions" / f"{day}.parquet"), day)
        for day in days
    ]
    for at in range(3, len(days)):
        found = compare(profiles[at], profiles[max(0, at - 7) : at])
        for figure in (found.rows, found.users):
            assert figure is None or 1 / 2 <= figure.deviation <= 2
        for figure in (found.new_item_share, found.event_mix, found.popularity_shift):
            assert figure is not None
            assert figure.deviation <= 0.15
        assert not found.lost_events
        assert not found.new_events
