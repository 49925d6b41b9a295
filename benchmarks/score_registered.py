"""Score a registered model as its users call it: through MLflow, with string ids.

Shares no code with the pipeline's evaluation: it reads the source files, cuts the histories, calls
`predict` for ten items and computes the metrics itself. If both agree, the evaluated model is the
registered one.

    python -m benchmarks.score_registered --config infra/configs/ml-1m.toml [--data DIR] [--final]

It scores validation events; only --final uses the test events.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import mlflow
import pandas as pd
import polars as pl

from benchmarks.harness import finish, options
from flows.config import NightlyConfig, load_config

K = 10
BATCH = 512


class Case(NamedTuple):
    """A held-out event."""

    user_id: str
    history: list[str]
    target: str
    not_yet_listed: list[str]


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, help="the night's TOML file")
    parser.add_argument("--workspace", type=Path, help="workspace of the night")
    parser.add_argument("--run-date", type=date.fromisoformat, help="the night's date")
    parser.add_argument(
        "--alias", default="champion", help="alias (champion or challenger) or version number"
    )
    parser.add_argument("--final", action="store_true", help="use the test events")
    args = parser.parse_args()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    config = load_config(args.config, data=args.data) if args.config else NightlyConfig()
    if args.workspace:
        config = config.model_copy(update={"workspace": args.workspace})
    mlflow.set_tracking_uri(config.registry.resolved_uri(config.workspace))
    mark = "/" if args.alias.isdigit() else "@"
    uri = f"models:/{config.name}-student{mark}{args.alias}"
    model = mlflow.pyfunc.load_model(uri)
    events = read_events(config)
    split = "test" if args.final else "validation"
    cases = list(
        leave_one_out(events, split)
        if config.prepare.split == "leave_one_out"
        else by_time(events, read_listing(config), config, args.run_date, split)
    )
    if args.quick:
        cases = cases[:BATCH]
    ndcg, hit_rate = score(model, cases)
    figures = {"model": uri, "split": split, "cases": len(cases), "ndcg_at_10": ndcg}
    figures["hr_at_10"] = hit_rate
    finish(
        "score_registered",
        ["model", "split", "cases", "NDCG@10", "HR@10"],
        [[uri, split, len(cases), ndcg, hit_rate]],
        figures,
        args.out,
    )


def read_events(config: NightlyConfig) -> pl.DataFrame:
    """All events of the source files: `user`, `item`, `at`, oldest first within a user."""
    source = config.events
    if source.format == "movielens":
        raw = pl.read_csv(f"{source.interactions}/ratings.csv")
        names = ("userId", "movieId", "timestamp")
    elif source.format == "csv":
        raw = pl.read_csv(str(source.interactions))
        names = (source.columns.user_id, source.columns.item_id, source.columns.timestamp)
    else:
        raw = pl.read_parquet(str(source.interactions))
        names = (source.columns.user_id, source.columns.item_id, source.columns.timestamp)
    user, item, at = (pl.col(name) for name in names)
    if raw.schema[names[2]].is_integer() and source.timestamp_kind == "time":
        at = pl.from_epoch(at, time_unit="s").dt.replace_time_zone("UTC")
    events = raw.select(user=user.cast(pl.String), item=item.cast(pl.String), at=at)
    return events.sort("user", "at", maintain_order=True)


def read_listing(config: NightlyConfig) -> dict[str, datetime]:
    """The time at which each item entered the catalogue, if the source has it."""
    path = config.events.items
    if path is None:
        return {}
    items = pl.read_parquet(path)
    if "available_from" not in items.columns:
        return {}
    return dict(items.select("item_id", "available_from").iter_rows())


def leave_one_out(events: pl.DataFrame, split: str) -> Iterator[Case]:
    """A user's last event is the test target, the last but one the validation target."""
    back = 1 if split == "test" else 2
    for user, items in events.group_by("user", maintain_order=True).agg("item").iter_rows():
        if len(items) >= 3 and items[-back] not in items[:-back]:
            yield Case(user, items[:-back], items[-back], [])


def by_time(
    events: pl.DataFrame,
    listing: dict[str, datetime],
    config: NightlyConfig,
    run_date: date | None,
    split: str,
) -> Iterator[Case]:
    """Events of the split's window, each with all earlier events of its user."""
    newest: Any = events["at"].max()
    day = run_date or config.run_date or newest.date() + timedelta(days=1)
    end = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(config.events.timezone))
    start = end - timedelta(days=config.prepare.test_days)
    if split == "validation":
        start, end = start - timedelta(days=config.prepare.validation_days), start
    first_seen = dict(events.group_by("item").agg(pl.col("at").min()).iter_rows())
    late = {item for item, at in listing.items() if at > start}
    if not listing and config.source is not None and config.source.format != "movielens":
        late = {item for item, at in first_seen.items() if at >= start}
    for user, items, times in (
        events.group_by("user", maintain_order=True).agg("item", "at").iter_rows()
    ):
        for place, (item, at) in enumerate(zip(items, times, strict=True)):
            if start <= at < end and item not in items[:place] and item not in late:
                yield Case(user, items[:place], item, sorted(late))


def score(model: Any, cases: list[Case]) -> tuple[float, float]:
    """NDCG@10 and hit rate, the mean over users of each user's mean."""
    gains: dict[str, list[float]] = defaultdict(list)
    for begin in range(0, len(cases), BATCH):
        batch = cases[begin : begin + BATCH]
        request = pd.DataFrame(
            {
                "history": [case.history for case in batch],
                "exclude": [case.not_yet_listed for case in batch],
            }
        )
        for case, items in zip(batch, model.predict(request)["item_ids"], strict=True):
            place = items.index(case.target) + 1 if case.target in items else math.inf
            gains[case.user_id].append(1 / math.log2(place + 1) if place <= K else 0.0)
    users = len(gains)
    ndcg = sum(sum(values) / len(values) for values in gains.values()) / users
    hits = sum(sum(value > 0 for value in values) / len(values) for values in gains.values())
    return ndcg, hits / users


if __name__ == "__main__":
    main()
