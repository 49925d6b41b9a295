"""Choose sizes and training of teacher and student from the log."""

import os
from typing import Literal

from pydantic import Field

from recsys_core.artifacts import MANIFEST, Artifact, is_finished
from recsys_core.settings import Settings
from recsys_core.training.recipe import Choice, LogStatistics, recipe
from tasks.contracts.recipe import Recipe
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.prepared import Prepared


class RecipeConfig(Settings):
    """Whether the log decides sizes and training."""

    mode: Literal["auto", "manual"] = Field(
        default="auto",
        description="auto: sizes, dropout, batches and epochs of teacher and student follow from "
        "the log; manual: they are as configured",
    )
    keep: tuple[str, ...] = Field(
        default=(),
        description="Settings that the recipe leaves as configured, by dotted name, for example "
        "teacher.model.n_layers. What a configuration file sets is among them by itself, and what "
        "differs from the defaults",
    )


@stage(output="recipe", version=5, libraries=("numpy", "polars"))
def choose_recipe(
    run: StageRun,
    config: RecipeConfig,
    *,
    teacher_source: Literal["trained", "external"],
    prepared: Artifact,
) -> Summary:
    """Write `recipe.json`: the chosen settings and why.

    While the log resembles the one that an earlier night chose by, that night's choices stay:
    networks whose sizes change from night to night could not be trained further.

    Args:
        run: The output's folder.
        config: Whether to choose, and what to leave.
        teacher_source: With an external teacher the settings are the student's only.
        prepared: Tonight's data.
    """
    if config.mode == "manual":
        Recipe(log=None, choices=()).save(run.out)
        return {}
    tonight = LogStatistics.of(Prepared(prepared).buckets)
    log = _earlier_log(run, tonight) or tonight
    trains_teacher = teacher_source == "trained"
    choices = [_without(c, config.keep) for c in recipe(log, trains_teacher=trains_teacher)]
    chosen = Recipe(log=log, choices=tuple(choice for choice in choices if choice.settings))
    for choice in chosen.choices:
        settings = ", ".join(f"{name} = {value}" for name, value in choice.settings.items())
        run.logger.info("Recipe: %s (%s)", choice.reason, settings)
    chosen.save(run.out)
    return chosen.model_dump(mode="json")


def _earlier_log(run: StageRun, tonight: LogStatistics) -> LogStatistics | None:
    """What the newest earlier recipe was chosen by, if tonight's log resembles it."""
    folders = [path.parent for path in run.out.parent.glob(f"*/{MANIFEST}")]
    newest = max(filter(is_finished, folders), key=os.path.getmtime, default=None)
    earlier = None if newest is None else Recipe.of_earlier(newest)
    log = None if earlier is None else earlier.log
    return log if log is not None and tonight.resembles(log) else None


def _without(choice: Choice, kept: tuple[str, ...]) -> Choice:
    left = {name: value for name, value in choice.settings.items() if name not in kept}
    return choice.model_copy(update={"settings": left})
