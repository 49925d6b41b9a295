"""The stage of the recipe: what it writes, says and leaves."""

import logging
from collections.abc import Callable

import pytest

from recsys_core.artifacts import Artifact
from tasks.contracts.recipe import Recipe
from tasks.engine.stage import StageRun
from tasks.stages.choose_recipe import RecipeConfig, choose_recipe


def test_the_choices_are_written_and_said(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = make_run("recipe")
    config = RecipeConfig(keep=("teacher.model.n_layers", "student.model.dropout"))
    with caplog.at_level(logging.INFO):
        choose_recipe.body(run, config, prepared=obvious_world)
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
    choose_recipe.body(run, RecipeConfig(mode="manual"), prepared=obvious_world)
    assert Recipe.load(run.out) == Recipe(log=None, choices=())
