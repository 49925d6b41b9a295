"""The stage of the recipe: what it writes, says and leaves."""

import logging
from collections.abc import Callable

import pytest

from recsys_core.artifacts import Artifact, publish
from recsys_core.training.recipe import LogStatistics
from tasks.contracts.recipe import Recipe
from tasks.engine.night import Night
from tasks.engine.stage import StageRun
from tasks.stages.choose_recipe import RecipeConfig, choose_recipe
from tasks.training.prepared import Prepared


def test_the_choices_are_written_and_said(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = make_run("recipe")
    config = RecipeConfig(keep=("teacher.model.n_layers", "student.model.dropout"))
    with caplog.at_level(logging.INFO):
        choose_recipe.body(run, config, teacher_source="trained", prepared=obvious_world)
    written = Recipe.load(run.out)
    assert written.log is not None
    assert (written.log.n_users, written.log.n_items) == (60, 16)
    chosen = {name for choice in written.choices for name in choice.settings}
    assert {"teacher.model.max_length", "student.model.n_layers"} <= chosen
    assert not chosen & set(config.keep)
    assert "60 users: batches of 32. (teacher.training.batch_size = 32" in caplog.text


def test_a_manual_recipe_chooses_nothing(
    make_run: Callable[[str], StageRun], obvious_world: Artifact
) -> None:
    run = make_run("recipe")
    choose_recipe.body(
        run, RecipeConfig(mode="manual"), teacher_source="trained", prepared=obvious_world
    )
    assert Recipe.load(run.out) == Recipe(log=None, choices=())


def test_with_an_external_teacher_the_choices_are_the_students(
    make_run: Callable[[str], StageRun], obvious_world: Artifact
) -> None:
    run = make_run("recipe")
    choose_recipe.body(run, RecipeConfig(), teacher_source="external", prepared=obvious_world)
    chosen = [name for choice in Recipe.load(run.out).choices for name in choice.settings]
    assert "student.training.epochs" in chosen
    assert all(name.startswith("student.") for name in chosen)


@pytest.mark.parametrize(("n_users", "stays"), [(70, True), (100, False)])
def test_an_earlier_choice_stays_while_the_log_resembles_it(
    night: Night, obvious_world: Artifact, n_users: int, stays: bool
) -> None:
    folder = night.workspace / "choose_recipe"
    log = LogStatistics.of(Prepared(obvious_world).buckets)
    earlier = Artifact("choose_recipe", "earlier", folder / "earlier")
    earlier_log = log.model_copy(update={"n_users": n_users})
    Recipe(log=earlier_log, choices=()).save(earlier.folder)
    publish(earlier, {}, {})
    run = StageRun.bare(night.workspace, folder / "tonight", key="tonight")
    run.out.mkdir()
    choose_recipe.body(run, RecipeConfig(), teacher_source="trained", prepared=obvious_world)
    assert Recipe.load(run.out).log == (earlier_log if stays else log)
