"""Prepare: from the lake to histories, as of the run date."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.artifacts import Artifact, publish, read_json, write_json
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.catalogue.versions import store_items
from recsys_core.data.histories.filters import FilterConfig
from recsys_core.data.histories.splits import SplitKind
from recsys_core.data.histories.targets import TargetConfig
from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import EVENT_TYPES, INTERACTIONS, ITEM_INDEX, TIMESTAMP
from recsys_core.models.content import HASHED_TEXT
from recsys_core.models.recommender import ModelConfig, Recommender
from tasks.contracts.split import Split
from tasks.engine.night import Night
from tasks.engine.stage import StageRun
from tasks.stages.prepare import PrepareConfig, prepare
from tasks.training.prepared import Prepared
from tests.ingest_result import ingest_result

RUN_DATE = date(2026, 3, 10)
CONFIG = PrepareConfig(validation_days=1, test_days=1, popularity_days=2, n_buckets=3)
INDEX = ["a", "b", "c", "d", "e"]

Event = tuple[str, str, datetime]


def _at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


EVENTS: list[Event] = [
    ("u", "a", _at(1)),
    ("u", "b", _at(6)),
    ("u", "c", _at(8)),
    ("u", "d", _at(9)),
    ("v", "b", _at(7)),
    ("v", "a", _at(7, 23)),
    ("w", "a", _at(9, 23)),
    ("later", "e", _at(10, 1)),
]


def _rows(events: list[Event]) -> pl.DataFrame:
    rows = [
        (user, item, moment, arrival, "view", 1.0, "s", moment.date())
        for arrival, (user, item, moment) in enumerate(events)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row")


def _store(lake: Lake, rows: pl.DataFrame) -> None:
    def decide(snapshot: Snapshot) -> Change:
        parts = rows.partition_by("date", as_dict=True).items()
        return Change([file for (day,), part in parts for file in snapshot.write(part, day)])

    lake.change(INTERACTIONS, decide)


@pytest.fixture
def ingested(night: Night) -> Callable[..., Artifact]:
    """Fill the lake and pin its versions; what comes into it later must not be read."""

    def ingest(events: list[Event] = EVENTS, kind: str = "time") -> Artifact:
        lake = Lake(night.lake)
        _store(lake, _rows(events))
        index = pl.DataFrame({"item_id": INDEX, "item_idx": range(1, 6)}, schema=ITEM_INDEX.schema)
        lake.append(ITEM_INDEX, lambda _: index)
        kinds = pl.DataFrame({"event_type": ["view"], "code": [0]}, schema=EVENT_TYPES.schema)
        lake.append(EVENT_TYPES, lambda _: kinds)
        items = pl.DataFrame(
            {
                "item_id": ["a", "d", "e"],
                "title": ["Apple", "Date", "Egg"],
                "categories": [["fruit"], ["fruit"], []],
                "available_from": [_at(1), _at(9), _at(9)],
            },
            schema_overrides={"available_from": TIMESTAMP},
        )
        store_items(lake, items, run_date=date(2026, 3, 10))
        folder = night.workspace / "ingest"
        ingest_result(lake, timestamp_kind=kind).save(folder)
        late = [("ghost", "a", _at(2))]
        _store(lake, _rows(late))
        return Artifact("ingest", "k", folder)

    return ingest


def _prepare(
    run: StageRun, ingested: Artifact, config: PrepareConfig = CONFIG, **inputs: str
) -> dict[str, Any]:
    arguments = {"run_date": RUN_DATE, "timezone": "UTC"} | inputs
    return prepare.body(run, config=config, ingested=ingested, validated=ingested, **arguments)


def _histories(run: StageRun) -> dict[str, tuple[list[int], int, int]]:
    frame = pl.concat([pl.read_parquet(path) for path in sorted((run.out / "histories").iterdir())])
    columns = ("user_id", "item_idx", "train_end", "validation_end")
    return {user: tuple(facts) for user, *facts in frame.select(columns).sort("user_id").rows()}


def test_histories_are_split_in_time_as_of_the_run_date(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    run = make_run("prepare")
    summary = _prepare(run, ingested())
    assert _histories(run) == {
        "u": ([1, 2, 3, 4], 2, 3),
        "v": ([2, 1], 2, 2),
        "w": ([1], 0, 0),
    }
    assert len(list((run.out / "histories").iterdir())) == 3
    split = read_json(run.out / "split.json")
    assert split == {
        "kind": "global_time",
        "trained_through": "2026-03-08T00:00:00+00:00",
        "validation_start": "2026-03-08T00:00:00+00:00",
        "test_start": "2026-03-09T00:00:00+00:00",
        "n_items": 5,
        "item_index_sha256": index_prefix_sha256(INDEX),
        "n_buckets": 3,
        "lake_version": 1,
        "lake_rows": 8,
        "event_types": ["view"],
        "targets": {"event_types": {}, "min_weight": None},
        "exclude_seen": True,
        "text_encoder": None,
        "n_users": 3,
        "train_events": 4,
        "validation_events": 1,
        "test_events": 2,
    }
    items = pl.read_parquet(run.out / "items.parquet")
    assert items.columns == [
        "item_idx",
        "item_id",
        "title",
        "categories",
        "candidate_validation",
        "candidate_test",
        "active",
        "train_count",
        "recent_count",
    ]
    flags = ("candidate_validation", "candidate_test", "active", "train_count", "recent_count")
    assert items.select("item_id", *flags).rows() == [
        ("a", True, True, True, 2, 1),
        ("b", True, True, True, 2, 2),
        ("c", False, True, True, 0, 0),
        ("d", False, False, True, 0, 0),
        ("e", False, False, True, 0, 0),
    ]
    assert summary == {
        "n_items": 5,
        "n_candidates": 5,
        "n_users": 3,
        "train_events": 4,
        "validation_events": 1,
        "test_events": 2,
    }


def test_leave_one_out_uses_the_order_alone(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    run = make_run("prepare")
    config = CONFIG.model_copy(update={"split": "leave_one_out"})
    _prepare(run, ingested(kind="order"), config)
    assert _histories(run) == {
        "u": ([1, 2, 3, 4], 2, 3),
        "v": ([2, 1], 2, 2),
        "w": ([1], 1, 1),
    }
    split = Split.load(run.out)
    assert (split.trained_through, split.validation_start, split.test_start) == (None, None, None)
    items = pl.read_parquet(run.out / "items.parquet")
    assert items["train_count"].to_list() == items["recent_count"].to_list() == [3, 2, 0, 0, 0]


def test_filters_look_at_training_events_alone(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    """Of the training events a and b have two each; c and d come in later, w does altogether."""
    run = make_run("prepare")
    filters = FilterConfig(min_user_events=1, min_item_events=2)
    _prepare(run, ingested(), CONFIG.model_copy(update={"filters": filters}))
    assert _histories(run) == {"u": ([1, 2], 2, 2), "v": ([2, 1], 2, 2)}


def test_target_kinds_are_a_setting(
    night: Night, make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    artifact = ingested()
    bought_kind = pl.DataFrame({"event_type": ["buy"], "code": [1]}, schema=EVENT_TYPES.schema)
    Lake(night.lake).append(EVENT_TYPES, lambda _: bought_kind)
    bought = _rows([("u", "e", _at(2)), ("v", "a", _at(6))])
    _add(night, artifact, bought.with_columns(event_type=pl.lit("buy")))

    run = make_run("prepare")
    _prepare(run, artifact, _with_targets({"buy": 2.0}))

    rows = pl.concat(pl.read_parquet(path) for path in (run.out / "histories").iterdir())
    targets = {user: kinds for user, kinds in rows.select("user_id", "target_weight").rows()}
    assert targets["u"] == [0, 2, 0, 0, 0]
    assert targets["v"] == [2, 0, 0]
    items = pl.read_parquet(run.out / "items.parquet")
    assert items["train_count"].to_list() == [1, 0, 0, 0, 1]

    with pytest.raises(ValueError, match=r"names 'sold', which never occurred.*buy, view"):
        _prepare(run, artifact, _with_targets({"sold": 1.0}))


def _add(night: Night, ingested: Artifact, rows: pl.DataFrame) -> None:
    """More interactions, which the night sees."""
    lake = Lake(night.lake)
    _store(lake, rows)
    ingest_result(lake).save(ingested.folder)


def _with_targets(event_types: dict[str, float], min_weight: float | None = None) -> PrepareConfig:
    targets = TargetConfig(event_types=event_types, min_weight=min_weight)
    return CONFIG.model_copy(update={"targets": targets})


def test_events_of_a_low_rating_are_no_targets(
    night: Night, make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    artifact = ingested()
    rated = _rows([("u", "e", _at(2)), ("u", "a", _at(3))])
    _add(night, artifact, rated.with_columns(weight=pl.Series([3.5, 4.0], dtype=pl.Float32)))
    run = make_run("prepare")
    _prepare(run, artifact, _with_targets({}, min_weight=4.0))
    rows = pl.concat(pl.read_parquet(path) for path in (run.out / "histories").iterdir())
    targets = dict(rows.select("user_id", "target_weight").iter_rows())
    assert targets["u"] == [0, 0, 1, 0, 0, 0]
    assert Split.load(run.out).targets == TargetConfig(min_weight=4.0)


def test_sessions_need_times(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    filters = FilterConfig(min_session_events=2)
    config = CONFIG.model_copy(update={"filters": filters, "split": "leave_one_out"})
    with pytest.raises(ValueError, match="there are no sessions"):
        _prepare(make_run("prepare"), ingested(kind="order"), config)


def test_days_begin_at_midnight_of_the_zone(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    run = make_run("prepare")
    _prepare(run, ingested(), timezone="Europe/Berlin")
    # v's second event, at 23 h UTC, is at midnight in Berlin: already in the validation window.
    assert _histories(run) == {"u": ([1, 2, 3, 4], 2, 3), "v": ([2, 1], 1, 2)}


def test_a_rerun_after_a_kill_gives_the_same_bytes(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    artifact, run = ingested(), make_run("undisturbed")
    _prepare(run, artifact)

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    killed = make_run("killed")
    with pytest.raises(KeyboardInterrupt):
        _prepare(replace(killed, progress=kill), artifact)
    _prepare(killed, artifact)
    files = [path.relative_to(run.out) for path in sorted(run.out.rglob("*")) if path.is_file()]
    assert files == sorted(
        path.relative_to(killed.out) for path in killed.out.rglob("*") if path.is_file()
    )
    for name in files:
        assert (run.out / name).read_bytes() == (killed.out / name).read_bytes(), name


@pytest.mark.parametrize(
    ("events", "kind", "split", "sentence"),
    [
        (EVENTS, "order", "global_time", r"Set prepare\.split to 'leave_one_out'"),
        (EVENTS[3:4], "time", "global_time", "nothing to train on"),
        (EVENTS[-1:], "time", "global_time", "nothing to train on"),
        ([], "time", "global_time", "nothing to train on"),
        ([], "time", "leave_one_out", "nothing to train on"),
    ],
    ids=["no times", "no training", "all later", "nothing", "nothing left out"],
)
def test_what_cannot_be_trained_on_is_refused(
    make_run: Callable[[str], StageRun],
    ingested: Callable[..., Artifact],
    events: list[Event],
    kind: str,
    split: SplitKind,
    sentence: str,
) -> None:
    run = make_run("prepare")
    config = CONFIG.model_copy(update={"split": split})
    with pytest.raises(ValueError, match=sentence):
        _prepare(run, ingested(events, kind), config)
    assert not (run.out / "split.json").exists()


def test_the_output_is_read_by_the_stages_that_follow(
    make_run: Callable[[str], StageRun], ingested: Callable[..., Artifact]
) -> None:
    run = make_run("prepare")
    _prepare(run, ingested([*EVENTS, ("x", "b", _at(2)), ("x", "a", _at(8))]))
    data = Prepared(Artifact("prepare", "k", run.out))
    assert [path.name for path in data.buckets] == [f"bucket-00{i}.parquet" for i in range(3)]
    content = data.content(16)
    assert content is not None
    assert content.keys() == {HASHED_TEXT}
    assert content[HASHED_TEXT].shape == (6, 16)
    assert content[HASHED_TEXT].any(dim=1).tolist() == [False, True, False, False, True, True]
    assert data.content(0) is None
    assert data.exclude_seen
    model = Recommender(5, ModelConfig(embedding_dim=8, n_layers=1, n_heads=1), None)
    # x's target competes with b only, which x has had, and with nothing that came later.
    assert data.validator(10)(model.eval()) == 1


def _night_of(
    night: Night,
    make_run: Callable[[str], StageRun],
    name: str,
    config: PrepareConfig = CONFIG,
) -> dict[str, bytes]:
    """Prepare what is in the lake now, and publish it as a stage does."""
    lake = Lake(night.lake)
    ingested = Artifact("ingest", name, night.workspace / f"ingest-{name}")
    ingest_result(lake).save(ingested.folder)
    run = make_run(name)
    _prepare(run, ingested, config)
    publish(Artifact("prepare", name, run.out), {}, {})
    paths = sorted(path for path in run.out.rglob("*.parquet"))
    return {str(path.relative_to(run.out)): path.read_bytes() for path in paths}


def test_a_night_extends_the_last_ones_histories_to_the_same_bytes(
    night: Night,
    make_run: Callable[[str], StageRun],
    ingested: Callable[..., Artifact],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    ingested(EVENTS[:4])
    lake = Lake(night.lake)
    _night_of(night, make_run, "extended/first")
    late = [("u", "e", _at(5)), ("v", "b", _at(7)), ("new", "a", _at(9)), ("u", "d", _at(9))]
    _store(lake, _rows(late).with_columns(arrival=pl.col("arrival") + 100))
    extended = _night_of(night, make_run, "extended/second")
    assert "only what came since first is new" in caplog.text
    caplog.clear()
    assert _night_of(night, make_run, "anew/second") == extended
    _forget_lake_rows(make_run("anew/second").out)
    _night_of(night, make_run, "anew/third")
    other = CONFIG.model_copy(update={"n_buckets": 2})
    _night_of(night, make_run, "extended/other", other)
    _night_of(night, make_run, "extended/weighty", _with_targets({"view": 3.0}))
    assert "only what came since" not in caplog.text
    (path, *_) = lake.snapshot(INTERACTIONS, 1).files()["path"]
    lake.change(INTERACTIONS, lambda _: Change(remove=[path]))
    _night_of(night, make_run, "extended/third")
    assert "only what came since" not in caplog.text


def _forget_lake_rows(prepared: Path) -> None:
    """Turn an output into one of a version that did not count the rows of the lake."""
    split = read_json(prepared / "split.json")
    write_json(
        prepared / "split.json", {name: split[name] for name in split if name != "lake_rows"}
    )
    size = (prepared / "split.json").stat().st_size
    manifest = read_json(prepared / "manifest.json")
    manifest["files"]["split.json"]["bytes"] = size
    write_json(prepared / "manifest.json", manifest)


def test_titles_are_encoded_once_by_a_sentence_model(
    night: Night,
    make_run: Callable[[str], StageRun],
    ingested: Callable[..., Artifact],
    sentence_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    ingested()
    config = CONFIG.model_copy(update={"text_encoder": str(sentence_model)})
    first = _night_of(night, make_run, "encoded/first", config)
    assert "0 are known from an earlier night" in caplog.text
    vectors = pl.read_parquet(first["embeddings.parquet"])["sentences"]
    assert vectors.is_null().to_list() == [False, True, True, False, False]
    assert vectors.drop_nulls().list.len().to_list() == [16, 16, 16]
    assert _night_of(night, make_run, "encoded/second", config) == first
    assert "3 are known from an earlier night" in caplog.text
    out = make_run("encoded/second").out
    content = Prepared(Artifact("prepare", "second", out)).content(8)
    assert content is not None
    assert content["sentences"].shape == (6, 16)
