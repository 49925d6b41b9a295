"""Nothing leaks: whatever happens from some moment on, all that comes before it stays as it was.

Two lakes hold the same events before a cut and anything at all after it; what a night makes of them
must be equal wherever it may not look beyond the cut.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from recsys_core.artifacts import Artifact
from recsys_core.data.catalogue.versions import store_items
from recsys_core.data.histories.cases import read_cases
from recsys_core.data.histories.filters import FilterConfig
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import EVENT_TYPES, INTERACTIONS, ITEM_INDEX, TIMESTAMP
from recsys_core.training.batching import TrainingSet
from tasks.engine.stage import StageRun
from tasks.stages.prepare import PrepareConfig, prepare
from tests.ingest_result import ingest_result

END = datetime(2026, 3, 10, tzinfo=UTC)
TEST_START, VALIDATION_START = END - timedelta(days=1), END - timedelta(days=2)
ITEMS, KINDS = ["a", "b", "c", "d", "e"], ["view", "buy"]

Event = tuple[str, str, datetime, str]


def _times(first: datetime, hours: int) -> st.SearchStrategy[datetime]:
    """Few distinct times, so that ties are frequent; the first one among them."""
    return st.integers(0, hours // 6 - 1).map(lambda six: first + timedelta(hours=6 * six))


def _events(times: st.SearchStrategy[datetime], least: int = 0) -> st.SearchStrategy[list[Event]]:
    users, items = st.sampled_from(["u", "v", "w", "x"]), st.sampled_from(ITEMS)
    event = st.tuples(users, items, times, st.sampled_from(KINDS))
    return st.lists(event, min_size=least, max_size=12)


PAST = _events(_times(VALIDATION_START - timedelta(days=4), 96), least=1).filter(
    lambda events: any(user == events[0][0] for user, *_ in events[1:])
)
CONFIGS = st.builds(
    PrepareConfig,
    popularity_days=st.just(2),
    n_buckets=st.just(2),
    catalogue=st.sampled_from(["all", "interacted"]),
    exclude_seen=st.booleans(),
    filters=st.builds(
        FilterConfig,
        min_session_events=st.integers(1, 2),
        session_gap_minutes=st.just(6 * 60),
        min_item_events=st.integers(0, 2),
    ),
)


def _prepared(workspace: Path, events: list[Event], config: PrepareConfig) -> Path | None:
    """What the prepare stage makes of events that arrive in this order; None: it refuses."""
    lake = Lake(workspace / "lake")
    rows = pl.DataFrame(
        [
            (user, item, moment, arrival, kind, 1.0, "s", moment.date())
            for arrival, (user, item, moment, kind) in enumerate(events)
        ],
        schema=INTERACTIONS.schema,
        orient="row",
    )

    def add(snapshot: Snapshot) -> Change:
        parts = rows.partition_by("date", as_dict=True).items()
        return Change([file for (day,), part in parts for file in snapshot.write(part, day)])

    lake.change(INTERACTIONS, add)
    index = pl.DataFrame({"item_id": ITEMS, "item_idx": range(1, 6)}, schema=ITEM_INDEX.schema)
    lake.append(ITEM_INDEX, lambda _: index)
    kinds = pl.DataFrame({"event_type": KINDS, "code": [0, 1]}, schema=EVENT_TYPES.schema)
    lake.append(EVENT_TYPES, lambda _: kinds)
    listed = pl.DataFrame(
        {
            "item_id": ITEMS,
            "title": ITEMS,
            "categories": [["x"]] * 5,
            "available_from": [END - timedelta(days=days) for days in (9, 9, 9, 2, 1)],
        },
        schema_overrides={"available_from": TIMESTAMP},
    )
    store_items(lake, listed, run_date=date(2026, 3, 1))
    ingested = Artifact("ingest", "k", workspace / "ingested")
    ingest_result(lake).save(ingested.folder)
    run = StageRun.bare(workspace, workspace / "out")
    run.out.mkdir()
    run.scratch.mkdir()
    body = prepare.body
    inputs = {"ingested": ingested, "validated": ingested, "timezone": "UTC"}
    try:
        body(run, config=config, run_date=END.date(), **inputs)
    except ValueError as error:
        if "nothing to train on" in str(error):
            return None
        raise
    return run.out


def _buckets(folder: Path) -> list[Path]:
    return sorted((folder / "histories").glob("*.parquet"))


def _items(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    return pl.read_parquet(folder / "items.parquet").select("item_idx", *columns).rows()


def _learned_from(folder: Path) -> object:
    """Everything that training reads, down to the batches."""
    paths = _buckets(folder)
    histories = read_training_histories(paths)
    users = {
        user: (histories.items[a:b].tolist(), histories.target_weights[a:b].tolist())
        for user, a, b in zip(
            histories.user_ids, histories.starts[:-1], histories.starts[1:], strict=True
        )
        if b > a
    }
    if all(len(items) < 2 for items, _ in users.values()):
        return users, _items(folder, "train_count", "recent_count")
    # Users without a training event take part in the order of the batches, not in what is in them.
    training_set = TrainingSet(paths, max_length=8, batch_size=1)
    windows = sorted(
        (batch.history.tolist(), batch.targets.tolist()) for batch in training_set.epoch(0, seed=1)
    )
    whole = [window for window in windows if len(window[0][0]) < 8]
    return users, _items(folder, "train_count", "recent_count"), whole


def _cases(folder: Path, *, exclude_seen: bool) -> list[tuple[Any, ...]]:
    """The validation cases with all that a model is given for them."""
    items = pl.read_parquet(folder / "items.parquet")
    found = [
        (user, target, history.tolist())
        for path in _buckets(folder)
        for cases in [read_cases(path, items, "validation", exclude_seen=exclude_seen)]
        for user, target, history in zip(
            cases.user_id, cases.targets.tolist(), cases.histories, strict=True
        )
    ]
    return [*found, *_items(folder, "candidate_validation")]


def _both(
    factory: pytest.TempPathFactory,
    before: list[Event],
    futures: tuple[list[Event], list[Event]],
    config: PrepareConfig,
    order: np.random.Generator,
) -> list[Path]:
    """Two nights with one past and two futures; events arrive in any order, the past's in one.

    None where the past alone is refused.
    """
    made: list[Path | None] = []
    for future in futures:
        places = sorted(order.integers(0, len(before) + 1, len(future)).tolist(), reverse=True)
        events = list(before)
        for place, event in zip(places, future, strict=True):
            events.insert(place, event)
        made.append(_prepared(factory.mktemp("night"), events, config))
    assert (made[0] is None) == (made[1] is None)
    return [folder for folder in made if folder is not None]


SEEDS = st.integers(0, 1000).map(np.random.default_rng)
QUICK = settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink a find would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUICK
@given(PAST, st.tuples(*[_events(_times(VALIDATION_START, 96))] * 2), CONFIGS, SEEDS)
def test_training_sees_nothing_from_validation_on(
    tmp_path_factory: pytest.TempPathFactory,
    past: list[Event],
    futures: tuple[list[Event], list[Event]],
    config: PrepareConfig,
    order: np.random.Generator,
) -> None:
    nights = _both(tmp_path_factory, past, futures, config, order)
    learned = [_learned_from(night) for night in nights]
    assert learned[1:] == learned[:1]


@QUICK
@given(
    PAST,
    _events(_times(VALIDATION_START, 24)),
    st.tuples(*[_events(_times(TEST_START, 72))] * 2),
    CONFIGS,
    SEEDS,
)
def test_validation_sees_nothing_from_test_on(
    tmp_path_factory: pytest.TempPathFactory,
    past: list[Event],
    validation: list[Event],
    futures: tuple[list[Event], list[Event]],
    config: PrepareConfig,
    order: np.random.Generator,
) -> None:
    nights = _both(tmp_path_factory, past + validation, futures, config, order)
    found = [_cases(night, exclude_seen=config.exclude_seen) for night in nights]
    assert found[1:] == found[:1]


@QUICK
@given(
    PAST,
    _events(_times(VALIDATION_START, 48)),
    st.tuples(*[_events(_times(END, 72))] * 2),
    CONFIGS,
    SEEDS,
)
def test_a_night_sees_nothing_from_its_run_date_on(
    tmp_path_factory: pytest.TempPathFactory,
    past: list[Event],
    windows: list[Event],
    futures: tuple[list[Event], list[Event]],
    config: PrepareConfig,
    order: np.random.Generator,
) -> None:
    """Not a byte of what is written, but for the row count of the lake."""
    nights = _both(tmp_path_factory, past + windows, futures, config, order)
    written = [
        {path.name: path.read_bytes() for path in sorted(night.rglob("*.parquet"))}
        for night in nights
    ]
    assert written[1:] == written[:1]
