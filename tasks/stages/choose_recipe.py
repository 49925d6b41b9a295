"""Choose sizes and training of teacher and student from the log."""

from typing import Literal

from pydantic import Field

from recsys_core.artifacts import Artifact
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
        "teacher.model.n_layers. The settings of a configuration file are among them by themselves",
    )


@stage(output="recipe", version=2, libraries=("numpy", "polars"))
def choose_recipe(run: StageRun, config: RecipeConfig, *, prepared: Artifact) -> Summary:
    """Write `recipe.json`: the chosen settings and why."""
    if config.mode == "manual":
        Recipe(log=None, choices=()).save(run.out)
        return {}
    log = LogStatistics.of(Prepared(prepared).buckets)
    choices = [_without(choice, config.keep) for choice in recipe(log)]
    chosen = Recipe(log=log, choices=tuple(choice for choice in choices if choice.settings))
    for choice in chosen.choices:
        settings = ", ".join(f"{name} = {value}" for name, value in choice.settings.items())
        run.logger.info("Recipe: %s (%s)", choice.reason, settings)
    chosen.save(run.out)
    return chosen.model_dump(mode="json")


def _without(choice: Choice, kept: tuple[str, ...]) -> Choice:
    left = {name: value for name, value in choice.settings.items() if name not in kept}
    return choice.model_copy(update={"settings": left})
