"""Soft labels bucket by bucket: a present bucket is not written again."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recsys_core.artifacts import Artifact, sha256_file
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.histories.windows import training_windows
from recsys_core.data.soft_labels.description import (
    SoftLabelDescription,
    SoftLabelError,
    store_sha256,
)
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.training import negative_sampling
from tasks.contracts.split import Split
from tasks.engine.stage import StageRun
from tasks.stages.distill import DistillationConfig, distill
from tasks.stages.write_soft_labels import SoftLabelConfig, write_soft_labels
from tasks.training.network import NetworkConfig
from tasks.training.prepared import Prepared
from tasks.training.student import StudentConfig
from tests.sparse_store import write_sparse_store


@pytest.fixture
def write(
    obvious_world: Artifact, trained_teacher: Artifact
) -> Callable[[StageRun, SoftLabelConfig], dict[str, Any]]:
    def run_stage(run: StageRun, config: SoftLabelConfig) -> dict[str, Any]:
        body = write_soft_labels.body
        return body(
            run,
            config,
            max_length=8,
            loss="auto",
            label_store=None,
            prepared=obvious_world,
            teacher=trained_teacher,
        )

    return run_stage


Write = Callable[[StageRun, SoftLabelConfig], dict[str, Any]]


@pytest.fixture
def write_external(obvious_world: Artifact) -> Write:
    """The stage of a night whose teacher is external."""

    def run_stage(run: StageRun, config: SoftLabelConfig) -> dict[str, Any]:
        assert config.store is not None
        return write_soft_labels.body(
            run,
            config,
            max_length=8,
            loss="auto",
            label_store=store_sha256(config.store),
            prepared=obvious_world,
            teacher=None,
        )

    return run_stage


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("top_items", "top_k"), [(5, 5), (0, None)])
def test_top_items_are_stored_where_the_student_draws_its_candidates(
    make_run: Callable[[str], StageRun],
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    top_items: int,
    top_k: int | None,
) -> None:
    monkeypatch.setattr(negative_sampling, "FULL_SOFTMAX_ITEMS", 15)
    run = make_run("labels")
    assert write(run, SoftLabelConfig(top_items=top_items))["top_k"] == top_k
    labels = pl.read_parquet(run.out / "labels" / "*.parquet")
    assert ("top_ids" in labels.columns) == (top_k is not None)
    monkeypatch.setattr(negative_sampling, "FULL_SOFTMAX_ITEMS", 16)
    assert write(make_run("full"), SoftLabelConfig(top_items=top_items))["top_k"] is None


def test_every_training_window_is_labelled(
    make_run: Callable[[str], StageRun], write: Write, obvious_world: Artifact
) -> None:
    run = make_run("labels")
    summary = write(run, SoftLabelConfig())
    buckets = Prepared(obvious_world).buckets
    windows = training_windows(read_training_histories(buckets), 8)
    assert summary["rows"] == windows.lengths.sum()
    assert (summary["layout"], summary["dim"]) == ("factorized", 16)
    assert summary["top_k"] is None
    assert sorted(_bytes(run.out)) == [
        *(bucket.name for bucket in buckets),
        "item_vectors.parquet",
        "soft_labels.json",
    ]
    store = SoftLabels(run.out, item_index_sha256="index")
    assert store.description.teacher == "teacher-key"
    store.align(read_training_histories(buckets), buckets)


def test_a_rerun_goes_on_at_the_first_missing_bucket(
    make_run: Callable[[str], StageRun], write: Write
) -> None:
    undisturbed, run = make_run("undisturbed"), make_run("killed")
    write(undisturbed, SoftLabelConfig())

    def kill(fraction: float, message: str) -> None:
        if message.startswith("bucket 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(replace(run, progress=kill), SoftLabelConfig())
    done = sorted((run.out / "labels").iterdir())
    assert [path.name for path in done] == ["bucket-000.parquet", "bucket-001.parquet"]
    for path in done:
        os.utime(path, ns=(1, 1))
    write(run, SoftLabelConfig())
    times = [path.stat().st_mtime_ns for path in sorted((run.out / "labels").iterdir())]
    assert times[:2] == [1, 1]
    assert times[2] > 1
    assert _bytes(run.out) == _bytes(undisturbed.out)


def test_the_newest_only(make_run: Callable[[str], StageRun], write: Write) -> None:
    run = make_run("labels")
    write(run, SoftLabelConfig(newest=2, batch_size=7))
    labels = pl.read_parquet(run.out / "labels" / "bucket-000.parquet")
    assert labels.group_by("user_id").agg(pl.col("window_start").n_unique())[
        "window_start"
    ].unique().to_list() == [1]


def _store(folder: Path, prepared: Artifact, buckets: list[Path], **changes: Any) -> Path:
    """A store that lists the next item after every other event, of the first 15 items."""

    def label(
        histories: ResidentHistories, events: NDArray[np.int64], rows: SparseRows
    ) -> SparseRows:
        return rows._replace(top_ids=histories.items[events + 1][:, None])

    store = write_sparse_store(folder, buckets, SparseShape(1), label, n_items=15, every=2)
    items = Prepared(prepared).items["item_id"].head(15)
    facts = {"item_index_sha256": index_prefix_sha256(items)} | changes
    store.description.model_copy(update=facts).save(folder)
    return folder


def test_the_student_learns_from_the_labels_of_a_store(
    make_run: Callable[[str], StageRun],
    write_external: Write,
    obvious_world: Artifact,
    tiny_network: NetworkConfig,
    tmp_path: Path,
) -> None:
    """One user's history has changed since, so that user's labels are left out."""
    buckets = Prepared(obvious_world).buckets
    earlier = [Path(shutil.copy(path, tmp_path / path.name)) for path in buckets]
    first = pl.col("user_id") == pl.col("user_id").first()
    reversed_ = pl.when(first).then(pl.col("item_idx").list.reverse()).otherwise("item_idx")
    pl.read_parquet(earlier[0]).with_columns(item_idx=reversed_).write_parquet(earlier[0])
    store = _store(tmp_path / "store", obvious_world, earlier)
    run = make_run("labels")
    summary = write_external(run, SoftLabelConfig(store=store))
    origin = LabelOrigin.of(Artifact("write_soft_labels", "key", run.out))
    assert origin is not None
    assert origin.store_sha256 == sha256_file(store / "soft_labels.json")
    assert (origin.teacher, origin.trained_through) == ("made elsewhere", None)
    assert origin.labels == origin.positions == summary["rows"] > 100
    assert (origin.users, origin.n_users) == (59, 60)
    assert 0.4 < origin.share < 0.6
    assert 0 < origin.stale < 12
    assert (summary["layout"], summary["teacher"]) == ("sparse", "made elsewhere")
    labels = SoftLabels(run.out, item_index_sha256="index")
    labels.align(read_training_histories(buckets), buckets)

    student = make_run("student")
    trained = distill.body(
        student,
        DistillationConfig(initialise="teacher", kd_weight=4),
        student=StudentConfig.model_validate(tiny_network.model_dump()),
        prepared=obvious_world,
        teacher=None,
        teacher_check=None,
        soft_labels=Artifact("write_soft_labels", "key", run.out),
    )
    assert trained["validation_ndcg_at_10"] > 0.9


@pytest.mark.parametrize(("least", "warns"), [(0.6, True), (0.5, False)])
def test_labels_of_few_positions_are_warned_of(
    make_run: Callable[[str], StageRun],
    write_external: Write,
    obvious_world: Artifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    least: float,
    warns: bool,
) -> None:
    store = _store(tmp_path / "store", obvious_world, Prepared(obvious_world).buckets)
    run = make_run("labels")
    write_external(run, SoftLabelConfig(store=store, warn_below_share=least))
    origin = LabelOrigin.load(run.out)
    assert 0.5 < origin.share < 0.6
    assert origin.share == origin.positions / origin.n_positions
    said = f"{store} labels {origin.positions} of {origin.n_positions} training positions, "
    assert (said in caplog.text) is warns


@pytest.mark.parametrize("has_dates", [False, True])
def test_a_possible_leak_is_warned_of(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    has_dates: bool,
) -> None:
    """Without dates whatever the store says; with dates if it does not say."""
    prepared, end = obvious_world, "2026-01-01T00:00:00+00:00"
    if has_dates:
        prepared = replace(obvious_world, folder=tmp_path / "prepared")
        shutil.copytree(obvious_world.folder, prepared.folder)
        dated = Split.load(prepared).model_copy(update={"trained_through": end})
        dated.save(prepared.folder)

    def written(name: str, trained_through: str | None) -> str:
        store = _store(tmp_path / name, prepared, Prepared(prepared).buckets)
        described = SoftLabelDescription.load(store)
        described.model_copy(update={"trained_through": trained_through}).save(store)
        caplog.clear()
        write_soft_labels.body(
            make_run(f"labels of {name}"),
            SoftLabelConfig(store=store),
            max_length=8,
            loss="auto",
            label_store=store_sha256(store),
            prepared=prepared,
            teacher=None,
        )
        return caplog.text

    assert ("has no dates" in written("known", end)) is not has_dates
    assert ("has no dates" in written("unknown", None)) is not has_dates
    assert ("does not say" in caplog.text) is has_dates


def test_a_store_that_changes_during_the_night_is_refused(
    make_run: Callable[[str], StageRun], obvious_world: Artifact, tmp_path: Path
) -> None:
    store = _store(tmp_path / "store", obvious_world, Prepared(obvious_world).buckets)
    with pytest.raises(SoftLabelError, match="has changed since this night began"):
        write_soft_labels.body(
            make_run("labels"),
            SoftLabelConfig(store=store),
            max_length=8,
            loss="auto",
            label_store="of other labels",
            prepared=obvious_world,
            teacher=None,
        )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layout": "factorized"}, "is of the layout factorized"),
        ({"item_index_sha256": "other"}, "made over another item index"),
        ({"sha256": {"labels/bucket-000.parquet": "x"}}, "is spread over 1 buckets"),
        ({"trained_through": "2999-01-01T00:00:00+00:00"}, "beyond tonight's training events"),
    ],
)
def test_a_store_that_does_not_fit_is_refused(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    trained_teacher: Artifact,
    tmp_path: Path,
    changes: dict[str, Any],
    sentence: str,
) -> None:
    prepared = replace(obvious_world, folder=tmp_path / "prepared")
    shutil.copytree(obvious_world.folder, prepared.folder)
    ends = {"trained_through": "2026-01-01T00:00:00+00:00"}
    Split.load(prepared).model_copy(update=ends).save(prepared.folder)
    store = _store(tmp_path / "store", prepared, Prepared(prepared).buckets, **changes)
    with pytest.raises(SoftLabelError, match=sentence):
        write_soft_labels.body(
            make_run("labels"),
            SoftLabelConfig(store=store),
            max_length=8,
            loss="auto",
            label_store=store_sha256(store),
            prepared=prepared,
            teacher=trained_teacher,
        )
