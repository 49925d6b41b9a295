"""Synthetic events: their order, their sessions, and whether they follow the true law."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from recsys_core.synthetic.world import World, bayes_ndcg_at_k, write_world
from tests.small_world import (
    FIRST,
    LAST,
    SMALL,
    Truth,
    ndcg_at_10,
    read_cases,
    read_events,
    z_score,
)


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


def test_events_follow_the_true_probabilities_item_by_item(
    truth: Truth,
) -> None:
    probabilities, targets = truth
    expected = probabilities.sum(axis=0)
    variance = (probabilities * (1 - probabilities)).sum(axis=0)
    observed = np.bincount(targets, minlength=len(expected))
    scores = (observed - expected) / np.sqrt(variance)
    assert abs(np.mean(scores**2) - 1) < 4 * np.sqrt(2 / len(scores))


def test_events_follow_the_true_probabilities_category_by_category(
    folder: Path, truth: Truth
) -> None:
    probabilities, targets = truth
    names = pl.read_parquet(folder / "items.parquet")["categories"].list.first()
    for name in names.unique():
        member = (names == name).to_numpy()
        hits = member[targets] - probabilities[:, member].sum(axis=1)
        assert abs(z_score(hits)) < 4


def test_likely_and_unlikely_items_happen_as_often_as_promised(
    truth: Truth,
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


def test_surprise_equals_the_entropy_and_beats_popularity(
    truth: Truth,
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
