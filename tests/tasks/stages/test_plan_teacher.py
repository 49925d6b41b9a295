"""Which earlier teacher a night starts from, and what it inherits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_core.artifacts import Artifact, publish, read_json, sha256_file, write_json
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.models.checkpoint import load_model
from recsys_core.models.ensemble import load_recommender
from recsys_core.settings import Progress, silent
from tasks.contracts.network import Curve
from tasks.contracts.split import Split
from tasks.contracts.teacher import Lineage, TeacherPlan
from tasks.engine.stage import StageRun
from tasks.stages.plan_teacher import plan_teacher
from tasks.stages.train_teacher import LostParentError, train_teacher
from tasks.training.network import NetworkConfig
from tasks.training.prepared import Prepared
from tasks.training.teacher import TeacherConfig, TransferError, networks_digest

Nights = Callable[..., tuple[StageRun, dict[str, Any]]]


@pytest.fixture
def teacher(tiny_network: NetworkConfig) -> TeacherConfig:
    fields = tiny_network.model_dump()
    fields["training"] |= {"epochs": 3, "validate_every": 1}
    return TeacherConfig.model_validate(fields)


def _world(source: Artifact, folder: Path, day: int, n_new_items: int = 0) -> Artifact:
    """The obvious world as of a day: its events just before, and perhaps more items."""
    folder.mkdir()
    (folder / "histories").mkdir()
    end = day * 86_400_000_000
    for path in source.file("histories").glob("*.parquet"):
        shifted = pl.col("timestamp").list.eval(pl.element() + end - 100)
        pl.read_parquet(path).with_columns(shifted).write_parquet(folder / "histories" / path.name)
    items = pl.read_parquet(source.file("items.parquet"))
    new = items.head(n_new_items).with_columns(
        item_idx=pl.col("item_idx") + len(items),
        item_id=pl.col("item_id") + "-new",
        train_count=0,
    )
    items = pl.concat([items, new.cast(items.schema)])  # pyright: ignore[reportArgumentType]
    items.write_parquet(folder / "items.parquet")
    items.select("item_idx").write_parquet(folder / "embeddings.parquet")
    changed = {
        "kind": "global_time",
        "trained_through": f"1970-01-{day + 1:02d}T00:00:00+00:00",
        "n_items": len(items),
        "item_index_sha256": index_prefix_sha256(items["item_id"].to_list()),
    }
    split = Split.load(source).model_dump() | changed
    Split.model_validate(split).save(folder)
    return Artifact("prepare", folder.name, folder)


@pytest.fixture
def night_of(
    make_run: Callable[[str], StageRun], obvious_world: Artifact, tmp_path: Path
) -> Nights:
    """Plan and train a night's teacher in one workspace."""

    def run_night(
        day: int,
        config: TeacherConfig,
        *,
        n_new_items: int = 0,
        name: str = "",
        progress: Progress = silent,
    ) -> tuple[StageRun, dict[str, Any]]:
        name = name or f"day-{day}"
        prepared = _world(obvious_world, tmp_path / f"world-{name}", day, n_new_items)
        planning, training = make_run(f"plan_teacher/{name}"), make_run(f"train_teacher/{name}")
        training = replace(training, progress=progress)
        plan = plan_teacher.body(planning, config=config, prepared=prepared)
        planned = Artifact("plan_teacher", name, planning.out)
        summary = train_teacher.body(
            training, config=config, prepared=prepared, teacher_plan=planned
        )
        publish(Artifact("train_teacher", name, training.out), {}, summary)
        return training, plan

    return run_night


def test_a_second_night_starts_from_the_first(night_of: Nights, teacher: TeacherConfig) -> None:
    first, plan = night_of(5, teacher)
    assert (plan["mode"], plan["parent"]) == ("full", None)
    messages: list[str] = []
    second, plan = night_of(
        6, teacher, n_new_items=2, progress=lambda _, message: messages.append(message)
    )
    assert messages[-1].startswith("fitting 2 cold items, step ")
    assert (plan["mode"], plan["parent"], plan["last"]) == ("warm", "day-5", "day-5")
    assert plan["warm_events"] < plan["full_events"]
    assert load_model(second.out).n_items == load_model(first.out).n_items + 2
    assert len(Curve.load(second.out).epochs) == teacher.retraining.warm_epochs
    lineage = Lineage.load(second.out)
    assert lineage == Lineage.load(first.out).model_copy(
        update={
            "mode": "warm",
            "parent": "day-5",
            "trained_through": "1970-01-07T00:00:00+00:00",
            "n_items": 18,
            "item_index_sha256": lineage.item_index_sha256,
        }
    )


def test_the_parent_is_the_newest_by_training_and_never_from_the_future(
    night_of: Nights, teacher: TeacherConfig
) -> None:
    for day in (7, 3, 5):  # the last one to be trained is not the newest
        night_of(day, teacher)
    assert night_of(6, teacher, name="between")[1]["parent"] == "day-5"
    assert night_of(8, teacher)[1]["parent"] == "day-7"
    assert night_of(3, teacher, name="again")[1]["parent"] is None


def test_other_networks_are_no_parent_but_the_last_teacher(
    night_of: Nights, teacher: TeacherConfig
) -> None:
    night_of(5, teacher)
    model = teacher.model.model_copy(update={"ffn_dim": 8})
    _, plan = night_of(6, teacher.model_copy(update={"model": model}))
    assert (plan["mode"], plan["parent"], plan["last"]) == ("full", None, "day-5")


def test_a_full_training_that_is_too_old_ends_the_chain(
    night_of: Nights, teacher: TeacherConfig
) -> None:
    retraining = teacher.retraining.model_copy(update={"full_every_days": 3})
    config = teacher.model_copy(update={"retraining": retraining})
    modes = [night_of(day, config)[1]["mode"] for day in (5, 6, 7, 8, 9)]
    assert modes == ["full", "warm", "warm", "full", "warm"]


def test_reuse_takes_weights_over_without_training(
    night_of: Nights, teacher: TeacherConfig
) -> None:
    retraining = teacher.retraining.model_copy(update={"reuse_days": 2})
    config = teacher.model_copy(update={"retraining": retraining, "n_seeds": 2})
    first, _ = night_of(5, config)
    second, plan = night_of(6, config, n_new_items=1)
    assert plan["mode"] == "reuse"
    old, new = load_recommender(first.out), load_recommender(second.out)
    with torch.inference_mode():
        torch.testing.assert_close(new.item_vectors()[:17], old.item_vectors(), atol=0.02, rtol=0.1)
    assert Curve.load(second.out).epochs == []
    through = Lineage.load(second.out).trained_through
    assert through == "1970-01-06T00:00:00+00:00", "it was not trained on the new day"
    assert night_of(7, config)[1]["mode"] == "warm"


def test_a_damaged_teacher_is_no_parent(night_of: Nights, teacher: TeacherConfig) -> None:
    first, _ = night_of(5, teacher)
    (first.out / "model.safetensors").unlink()
    assert night_of(6, teacher)[1]["parent"] is None


def test_a_teacher_of_another_release_is_no_parent(
    night_of: Nights, teacher: TeacherConfig
) -> None:
    first, _ = night_of(5, teacher)
    lineage = read_json(first.out / "lineage.json")
    write_json(first.out / "lineage.json", {**lineage, "way": lineage["mode"]})
    publish(Artifact("train_teacher", "day-5", first.out), {}, {})
    assert night_of(6, teacher)[1]["parent"] is None


def test_a_parent_that_was_deleted_since_the_plan_is_an_error(
    night_of: Nights, teacher: TeacherConfig, full_training: TeacherPlan, tmp_path: Path
) -> None:
    run, _ = night_of(5, teacher)
    changes = {"mode": "warm", "parent": "no-such-key", "since": 0}
    full_training.model_copy(update=changes).save(run.scratch)
    with pytest.raises(LostParentError, match="no-such-key, which is missing or damaged"):
        train_teacher.body(
            run,
            config=teacher,
            prepared=Artifact("prepare", "world", tmp_path / "world-day-5"),
            teacher_plan=Artifact("plan_teacher", "plan", run.scratch),
        )


def test_full_training_begins_with_what_was_learned_elsewhere(
    night_of: Nights, teacher: TeacherConfig, tmp_path: Path
) -> None:
    elsewhere, _ = night_of(5, teacher)
    source = tmp_path / "elsewhere"
    elsewhere.out.rename(source)
    fresh, _ = night_of(6, teacher)
    fresh.out.rename(tmp_path / "fresh")
    second, plan = night_of(6, teacher.model_copy(update={"transfer_from": source}), name="second")
    assert plan["mode"] == "full"
    losses = [Curve.load(at).epochs[0].loss for at in (tmp_path / "fresh", second.out)]
    assert losses[1] < 0.9 * losses[0]
    transferred = Lineage.load(second.out).transferred_from
    assert transferred == [sha256_file(source / "model.safetensors")]
    third, plan = night_of(7, teacher)
    assert plan["mode"] == "warm"
    assert Lineage.load(third.out).transferred_from == transferred


def test_what_can_not_be_transferred_is_said(
    night_of: Nights, teacher: TeacherConfig, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match=r"holds no teacher \(model.safetensors and model.json"):
        night_of(5, teacher.model_copy(update={"transfer_from": tmp_path}))
    first, _ = night_of(6, teacher)
    wider = teacher.model_copy(update={"content_features": 9, "transfer_from": first.out})
    with pytest.raises(TransferError, match=r"transfer_from: .*other shapes of content\.project"):
        night_of(7, wider)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/model.json").write_bytes((first.out / "model.json").read_bytes())
    weights = (first.out / "model.safetensors").read_bytes()
    (tmp_path / "damaged/model.safetensors").write_bytes(weights[: len(weights) // 2])
    damaged = wider.model_copy(update={"transfer_from": tmp_path / "damaged"})
    with pytest.raises(TransferError, match=r"transfer_from: .*damaged"):
        night_of(8, damaged)


def test_weights_exchanged_since_the_plan_are_said(
    night_of: Nights, make_run: Callable[[str], StageRun], teacher: TeacherConfig, tmp_path: Path
) -> None:
    source = tmp_path / "elsewhere"
    night_of(5, teacher.model_copy(update={"n_seeds": 2}))[0].out.rename(source)
    config = teacher.model_copy(update={"transfer_from": source, "n_seeds": 2})
    prepared = Artifact("prepare", "world-day-5", tmp_path / "world-day-5")
    planning, training = make_run("plan_teacher/pinned"), make_run("train_teacher/pinned")
    plan_teacher.body(planning, config=config, prepared=prepared)
    (source / "model.safetensors").replace(source / "member-1/model.safetensors")
    (source / "model.safetensors").hardlink_to(source / "member-1/model.safetensors")
    with pytest.raises(TransferError, match=r"elsewhere are others than .*plan_teacher/pinned"):
        train_teacher.body(
            training,
            config=config,
            prepared=prepared,
            teacher_plan=Artifact("plan_teacher", "pinned", planning.out),
        )


def test_weights_mean_nothing_to_another_text_encoder(
    teacher: TeacherConfig, obvious_world: Artifact
) -> None:
    data = Prepared(obvious_world)
    before = networks_digest(teacher, data)
    data.split = data.split.model_copy(update={"text_encoder": "another"})
    assert networks_digest(teacher, data) != before
