"""A synthetic catalogue: titles, categories, arrivals."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import polars as pl

from tests.small_world import FIRST, LAST, SMALL, read_events


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
