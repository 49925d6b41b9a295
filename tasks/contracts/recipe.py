"""File of the recipe."""

from recsys_core.json_file import JsonFile
from recsys_core.training.recipe import Choice, LogStatistics


class Recipe(JsonFile):
    """The settings that the log decided.

    Attributes:
        log: What decided: tonight's log, or an earlier similar one; None without a recipe.
        choices: The settings with their reasons, without those that the configuration sets.
    """

    file_name = "recipe.json"

    log: LogStatistics | None
    choices: tuple[Choice, ...]
