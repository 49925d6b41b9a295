"""Soft labels bucket by bucket: a present bucket is not written again."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.artifacts import Artifact
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.histories.windows import training_windows
from recsys_core.data.soft_labels.store import SoftLabels
from tasks.engine.stage import StageRun
from tasks.stages.write_soft_labels import SoftLabelConfig, write_soft_labels
from tasks.training.prepared import Prepared


@pytest.fixture
def write(
    obvious_world: Artifact, trained_teacher: Artifact
) -> Callable[[StageRun, SoftLabelConfig], dict[str, Any]]:
    def run_stage(run: StageRun, config: SoftLabelConfig) -> dict[str, Any]:
        body = write_soft_labels.body
        return body(run, config, max_length=8, prepared=obvious_world, teacher=trained_teacher)

    return run_stage


Write = Callable[[StageRun, SoftLabelConfig], dict[str, Any]]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_training_window_is_labelled(
    make_run: Callable[[str], StageRun], write: Write, obvious_world: Artifact
) -> None:
    run = make_run("labels")
    summary = write(run, SoftLabelConfig())
    buckets = Prepared(obvious_world).buckets
    windows = training_windows(read_training_histories(buckets), 8)
    assert summary["rows"] == windows.lengths.sum()
    assert (summary["layout"], summary["dim"]) == ("factorized", 16)
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
