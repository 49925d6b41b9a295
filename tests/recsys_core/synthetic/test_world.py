import shutil
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys_core.synthetic.world import World, WorldConfig, bayes_ndcg_at_k, write_world

FIRST = date(2026, 1, 1)
LAST = date(2026, 1, 10)
SMALL = WorldConfig(
    n_users=250,
    n_items=150,
    n_categories=8,
    new_user_share=0.02,
    new_item_share=0.02,
    events_per_user_day=4.0,
)


class Cases(NamedTuple):
    """Every event as a case: who, what before, when, and what it was."""

    users: list[str]
    histories: list[list[str]]
    days: list[date]
    targets: list[str]


def read_events(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted((folder / "interactions").glob("*.parquet")))


def read_cases(folder: Path) -> Cases:
    cases = Cases([], [], [], [])
    by_user = read_events(folder).sort("user_id", "timestamp").group_by("user_id")
    for (user,), events in sorted(by_user, key=lambda group: group[0]):
        items = events["item_id"].to_list()
        cases.users.extend([str(user)] * len(items))
        cases.histories.extend(items[:place] for place in range(len(items)))
        cases.days.extend(events["timestamp"].dt.date())
        cases.targets.extend(items)
    return cases


def read_bytes(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def ndcg_at_10(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)
    ranks = 1 + (scores > target_scores).sum(axis=1)
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)


def z_score(difference: np.ndarray) -> float:
    return float(difference.mean() / (difference.std() / np.sqrt(len(difference))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, SMALL, first_day=FIRST, through=LAST)
    return folder


@pytest.fixture(scope="module")
def cases(folder: Path) -> Cases:
    return read_cases(folder)


@pytest.fixture(scope="module")
def truth(folder: Path, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities of every event, and the column of what happened."""
    item_ids, probabilities = World.open(folder).next_item_probabilities(
        cases.users, cases.histories, cases.days
    )
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    return probabilities, np.array([columns[target] for target in cases.targets])


# What the files hold


def test_files_have_the_promised_columns(folder: Path) -> None:
    assert read_events(folder).schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        "event_type": pl.String,
    }
    assert pl.read_parquet_schema(folder / "items.parquet") == {
        "item_id": pl.String,
        "title": pl.String,
        "categories": pl.List(pl.String),
        "available_from": pl.Datetime("us", "UTC"),
    }
    assert not [path for path in folder.rglob(".*")]


def test_each_file_holds_its_own_day_in_order_of_time(folder: Path) -> None:
    files = sorted((folder / "interactions").glob("*.parquet"))
    assert [path.stem for path in files] == [str(FIRST + timedelta(days=n)) for n in range(10)]
    for path in files:
        timestamps = pl.read_parquet(path)["timestamp"]
        assert set(timestamps.dt.date()) == {date.fromisoformat(path.stem)}
        assert timestamps.is_sorted()


def test_timestamps_increase_strictly_within_a_user(folder: Path) -> None:
    gaps = (
        read_events(folder)
        .sort("user_id", "timestamp")
        .select(gap=pl.col("timestamp").diff().over("user_id"))["gap"]
    )
    assert (gaps.drop_nulls() > timedelta(0)).all()


def test_visits_come_in_sessions(folder: Path) -> None:
    events = read_events(folder).sort("user_id", "timestamp")
    gaps = events.select(
        gap=pl.col("timestamp").diff().over("user_id", pl.col("timestamp").dt.date())
    )["gap"].drop_nulls()
    assert gaps.mean() > 3 * gaps.median()  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]


def test_nobody_has_an_item_twice_unless_repeats_are_allowed(folder: Path, tmp_path: Path) -> None:
    assert not read_events(folder).select("user_id", "item_id").is_duplicated().any()
    allowed = SMALL.model_copy(update={"allow_repeats": True})
    write_world(tmp_path, allowed, first_day=FIRST, through=LAST)
    assert read_events(tmp_path).select("user_id", "item_id").is_duplicated().any()


def test_no_event_precedes_its_items_availability(folder: Path) -> None:
    items = pl.read_parquet(folder / "items.parquet")
    events = read_events(folder).join(items, on="item_id", how="left", validate="m:1")
    assert events["available_from"].null_count() == 0
    assert (events["timestamp"] >= events["available_from"]).all()


def test_users_and_items_arrive_every_day(folder: Path) -> None:
    first_seen = read_events(folder).group_by("user_id").agg(pl.col("timestamp").min().dt.date())
    arrivals = first_seen.filter(pl.col("user_id") >= "u000250")["timestamp"].value_counts()
    items = pl.read_parquet(folder / "items.parquet")
    for day in range(1, 10):
        today = FIRST + timedelta(days=day)
        assert arrivals.filter(timestamp=today)["count"].to_list() == [5]
        assert items.filter(pl.col("available_from").dt.date() == today).height == 3
    assert items["available_from"].max() == datetime.combine(LAST, time(), UTC)
    assert items.filter(pl.col("available_from").dt.date() < FIRST).height > 100


def test_popularity_is_concentrated_as_the_zipf_exponent_says(tmp_path: Path) -> None:
    shares: dict[float, float] = {}
    for exponent in (0.0, 1.1, 2.0):
        config = SMALL.model_copy(update={"zipf_exponent": exponent, "allow_repeats": True})
        write_world(tmp_path / str(exponent), config, first_day=FIRST, through=LAST)
        counts = read_events(tmp_path / str(exponent))["item_id"].value_counts()["count"].to_numpy()
        shares[exponent] = np.sort(counts)[-15:].sum() / counts.sum()
    assert shares[0.0] < 0.25 < shares[1.1] < shares[2.0]


def test_titles_tell_the_category_and_the_succession(folder: Path) -> None:
    items = pl.read_parquet(folder / "items.parquet").with_columns(
        word=pl.col("title").str.split(" ").list.first(),
        series=pl.col("title").str.replace(r" \d+$", ""),
        number=pl.col("title").str.extract(r" (\d+)$").cast(pl.Int64),
        category=pl.col("categories").list.first(),
    )
    assert items["title"].n_unique() == items.height
    assert items.group_by("word").agg(pl.col("category").n_unique())["category"].max() == 1
    assert items["category"].n_unique() == 8
    whole = items.group_by("series").agg(pl.col("number").sort())["number"].to_list()
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in whole)
    assert max(len(numbers) for numbers in whole) == SMALL.series_length


def test_users_go_on_with_a_series(folder: Path) -> None:
    series = pl.read_parquet(folder / "items.parquet").select(
        "item_id", series=pl.col("title").str.replace(r" \d+$", "")
    )
    events = read_events(folder).join(series, on="item_id").sort("user_id", "timestamp")
    same = events.select(
        same=pl.col("series") == pl.col("series").shift(1).over("user_id"),
    )["same"]
    assert 0.15 < same.drop_nulls().mean() < 0.5  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]


def test_purchases_grow_with_taste(folder: Path) -> None:
    category = pl.col("categories").list.first()
    items = pl.read_parquet(folder / "items.parquet").select("item_id", category=category)
    events = (
        read_events(folder)
        .join(items, on="item_id")
        .with_columns(
            purchase=pl.col("event_type") == "purchase",
            n=pl.len().over("user_id"),
            share=pl.len().over("user_id", "category") / pl.len().over("user_id"),
        )
    )
    assert set(events["event_type"]) == {"click", "purchase"}
    often = events.filter(pl.col("n") > 20)
    liked = often.filter(pl.col("share") > 0.4)["purchase"].mean()
    rest = often.filter(pl.col("share") < 0.1)["purchase"].mean()
    assert liked > 2 * rest  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]


# Same seed, same bytes; a longer world begins like a shorter one


def test_same_seed_same_bytes_other_seed_other_bytes(folder: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "same", SMALL, first_day=FIRST, through=LAST)
    assert read_bytes(tmp_path / "same") == read_bytes(folder)
    other = SMALL.model_copy(update={"seed": 1})
    write_world(tmp_path / "other", other, first_day=FIRST, through=LAST)
    ours, theirs = read_bytes(folder), read_bytes(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] == theirs[name]]


@pytest.mark.parametrize("allow_repeats", [False, True])
def test_an_extended_world_equals_one_written_at_once(tmp_path: Path, allow_repeats: bool) -> None:
    config = SMALL.model_copy(update={"allow_repeats": allow_repeats})
    write_world(tmp_path / "grown", config, first_day=FIRST, through=date(2026, 1, 3))
    early = read_bytes(tmp_path / "grown")
    days = [name for name in early if name.startswith("interactions")]
    stamps = {name: (tmp_path / "grown" / name).stat().st_mtime_ns for name in days}
    write_world(tmp_path / "grown", config, first_day=FIRST, through=date(2026, 1, 4))
    write_world(tmp_path / "grown", config, first_day=date(2026, 1, 6), through=LAST)
    grown = read_bytes(tmp_path / "grown")
    assert len(days) == 3
    assert {name: grown[name] for name in days} == {name: early[name] for name in days}
    assert {name: (tmp_path / "grown" / name).stat().st_mtime_ns for name in days} == stamps
    write_world(tmp_path / "whole", config, first_day=FIRST, through=LAST)
    assert grown == read_bytes(tmp_path / "whole")


def test_an_earlier_end_leaves_the_world_as_it_is(folder: Path) -> None:
    before = read_bytes(folder)
    write_world(folder, SMALL, first_day=FIRST, through=date(2026, 1, 2))
    assert read_bytes(folder) == before


def test_a_killed_write_is_completed(folder: Path, tmp_path: Path) -> None:
    def die(fraction: float, message: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path, SMALL, first_day=FIRST, through=LAST, progress=die)
    with pytest.raises(FileNotFoundError, match="no finished synthetic world"):
        World.open(tmp_path)
    (tmp_path / "interactions" / ".2026-01-07.parquet.draft").write_bytes(b"half")
    write_world(tmp_path, SMALL, first_day=FIRST, through=LAST)
    assert read_bytes(tmp_path) == read_bytes(folder)


def test_a_lost_day_is_written_again(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "interactions" / "2026-01-05.parquet").unlink()
    write_world(tmp_path / "copy", SMALL, first_day=FIRST, through=LAST)
    assert read_bytes(tmp_path / "copy") == read_bytes(folder)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    fractions: list[float] = []
    write_world(
        tmp_path,
        SMALL,
        first_day=FIRST,
        through=date(2026, 1, 4),
        progress=lambda fraction, message: fractions.append(fraction),
    )
    assert fractions == [0.25, 0.5, 0.75, 1.0]


def test_another_world_in_the_folder_is_refused(folder: Path) -> None:
    other = SMALL.model_copy(update={"n_items": 151})
    with pytest.raises(ValueError, match=r"n_items = 150, not 151.*delete this one"):
        write_world(folder, other, first_day=FIRST, through=LAST)


def test_a_world_cannot_end_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"begins on 2026-01-10.*later `through`"):
        write_world(tmp_path, SMALL, first_day=LAST, through=FIRST)
    assert not list(tmp_path.iterdir())


def test_settings_are_bounded() -> None:
    for bad in ({"n_users": 0}, {"successor_probability": 1.0}, {"series_length": 3}):
        with pytest.raises(ValidationError):
            WorldConfig.model_validate(bad)


# The truth


def test_true_probabilities_are_a_distribution_over_what_is_in_reach(
    folder: Path, cases: Cases, truth: tuple[np.ndarray, np.ndarray]
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


def test_events_follow_the_true_probabilities_item_by_item(
    truth: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, targets = truth
    expected = probabilities.sum(axis=0)
    variance = (probabilities * (1 - probabilities)).sum(axis=0)
    observed = np.bincount(targets, minlength=len(expected))
    scores = (observed - expected) / np.sqrt(variance)
    assert abs(np.mean(scores**2) - 1) < 4 * np.sqrt(2 / len(scores))


def test_events_follow_the_true_probabilities_category_by_category(
    folder: Path, truth: tuple[np.ndarray, np.ndarray]
) -> None:
    probabilities, targets = truth
    names = pl.read_parquet(folder / "items.parquet")["categories"].list.first()
    for name in names.unique():
        member = (names == name).to_numpy()
        hits = member[targets] - probabilities[:, member].sum(axis=1)
        assert abs(z_score(hits)) < 4


def test_likely_and_unlikely_items_happen_as_often_as_promised(
    truth: tuple[np.ndarray, np.ndarray],
) -> None:
    """Calibration at every level of probability, from hopeless items to sure successors."""
    probabilities, targets = truth
    rows = np.arange(len(targets))
    happened = np.zeros(probabilities.shape)
    happened[rows, targets] = 1
    for low, high in ((0, 1e-4), (1e-4, 1e-3), (1e-3, 1e-2), (0.01, 0.05), (0.05, 0.2), (0.2, 1)):
        within = (probabilities > low) & (probabilities <= high)
        difference = (happened - probabilities)[within].sum()
        variance = (probabilities * (1 - probabilities))[within].sum()
        assert abs(difference) < 4 * np.sqrt(variance)


def test_events_follow_the_truth_in_what_they_owe_to_each_of_the_last_two_items(
    tmp_path: Path,
) -> None:
    """A dense world (many events, few items) shows small errors in any part of the law."""
    config = SMALL.model_copy(
        update={
            "n_users": 3_000,
            "n_items": 64,
            "events_per_user_day": 8.0,
            "transition_probability": 0.6,
            "allow_repeats": True,
        }
    )
    write_world(tmp_path, config, first_day=FIRST, through=date(2026, 1, 3))
    cases = read_cases(tmp_path)
    chosen = [row for row, history in enumerate(cases.histories) if len(history) > 1]
    histories = [cases.histories[row][-2:] for row in chosen]
    item_ids, probabilities = World.open(tmp_path).next_item_probabilities(
        [cases.users[row] for row in chosen], histories, [cases.days[row] for row in chosen]
    )
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    targets = np.array([columns[cases.targets[row]] for row in chosen])
    items = pl.read_parquet(tmp_path / "items.parquet").select(
        category=pl.col("title").str.split(" ").list.first().rank("dense"),
        series=pl.col("title").str.replace(r" \d+$", "").rank("dense"),
        number=pl.col("title").str.extract(r" (\d+)$").cast(pl.Int64) - 1,
    )
    category, series, number = (items[name].to_numpy() for name in items.columns)
    steps = (number[None, :] - number[:, None]) % config.series_length
    ahead = np.where(series[None, :] == series[:, None], steps, 0)
    relations = [ahead == step for step in (1, 2, 3)]
    relations += [category[None, :] == category[:, None]]
    for place in (-1, -2):
        anchor = np.array([columns[history[place]] for history in histories])
        for relation in relations:
            related = relation[anchor]
            happened = related[np.arange(len(targets)), targets]
            assert abs(z_score(happened - (probabilities * related).sum(axis=1))) < 4


@pytest.mark.parametrize("moving", ["trend_drift", "freshness_boost"])
def test_only_trends_and_freshness_make_days_differ(tmp_path: Path, moving: str) -> None:
    still = SMALL.model_copy(
        update={"trend_drift": 0.0, "freshness_boost": 0.0, "new_item_share": 0.0}
    )
    case = (["u000001"] * 2, [["i000001"]] * 2, [FIRST, LAST])
    write_world(tmp_path / "still", still, first_day=FIRST, through=LAST)
    _, rows = World.open(tmp_path / "still").next_item_probabilities(*case)
    np.testing.assert_array_equal(rows[0], rows[1])
    drifting = still.model_copy(update={moving: 0.5})
    write_world(tmp_path / "drifting", drifting, first_day=FIRST, through=LAST)
    _, rows = World.open(tmp_path / "drifting").next_item_probabilities(*case)
    assert np.abs(rows[0] - rows[1]).sum() > 0.001


def test_surprise_equals_the_entropy_and_beats_popularity(
    truth: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, targets = truth
    rows = np.arange(len(targets))
    surprise = -np.log(probabilities[rows, targets])
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros(probabilities.shape))
    entropy = -(probabilities * logs).sum(axis=1)
    assert abs(z_score(surprise - entropy)) < 4
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    popularity = np.where(probabilities > 0, counts + 1.0, 0)
    popularity /= popularity.sum(axis=1, keepdims=True)
    assert surprise.mean() < -np.log(popularity[rows, targets]).mean() - 0.5


def test_expected_ndcg_is_what_the_true_ranking_reaches(
    truth: tuple[np.ndarray, np.ndarray],
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


def test_repeats_are_possible_where_they_are_allowed(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"allow_repeats": True})
    write_world(tmp_path, config, first_day=FIRST, through=date(2026, 1, 3))
    cases = read_cases(tmp_path)
    _, probabilities = World.open(tmp_path).next_item_probabilities(*cases[:3])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    item_ids = World.open(tmp_path).item_ids
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    targets = np.array([columns[target] for target in cases.targets])
    reached = ndcg_at_10(probabilities, targets)
    assert abs(z_score(reached - bayes_ndcg_at_k(probabilities))) < 4
    rows = [row for row, history in enumerate(cases.histories) if history]
    last = [columns[cases.histories[row][-1]] for row in rows]
    assert (probabilities[rows, last] > 0).all()


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


# Worlds of any size


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
