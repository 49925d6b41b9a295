"""Recommendations of the registered champion, with titles from the lake."""

from collections.abc import Sequence

import pandas as pd
import polars as pl

from flows.config import NightlyConfig
from recsys_core.data.lake.tables import Lake
from tasks.registry.store import CHAMPION, Registry, champion_version, student_name


class NoChampionError(RuntimeError):
    """No model has been promoted yet."""


def recommend(
    config: NightlyConfig, history: Sequence[str], *, k: int, explain: bool
) -> list[tuple[str, ...]]:
    """The champion's recommendations.

    Args:
        config: Gives the workspace and the registry.
        history: Item ids, oldest first.
        k: Number of items.
        explain: Add the history item that contributed most to each score.

    Returns:
        Rank, item id, title and score; with `explain` also the title of the item that contributed
        most.

    Raises:
        NoChampionError: No night has promoted a model yet.
    """
    name = student_name(config.name)
    if champion_version(config.workspace, config.registry, config.name) is None:
        msg = (
            f"{name} has no champion in {config.registry.resolved_uri(config.workspace)}: run "
            "`recdistill nightly` first; its report says why a model was refused."
        )
        raise NoChampionError(msg)
    model = Registry(config.workspace, config.registry).load_student(name, CHAMPION)
    request = pd.DataFrame({"history": [list(history)]})
    answer = model.predict(request, params={"k": k, "explain": explain}).iloc[0]
    titles = _titles(config, [*answer["item_ids"], *history])
    rows = [
        (str(rank), item_id, titles.get(item_id, ""), f"{score:.3f}")
        for rank, (item_id, score) in enumerate(
            zip(answer["item_ids"], answer["scores"], strict=True), start=1
        )
    ]
    if not explain:
        return rows
    return [
        (*row, _strongest(contributions, titles))
        for row, contributions in zip(rows, answer["contributions"], strict=True)
    ]


def _titles(config: NightlyConfig, item_ids: Sequence[str]) -> dict[str, str]:
    items = (
        Lake(config.workspace / "lake")
        .scan("items")
        .filter(pl.col("item_id").is_in(list(item_ids)), pl.col("title").is_not_null())
        .sort("valid_from")
        .select("item_id", "title")
        .collect()
    )
    return dict(items.iter_rows())


def _strongest(contributions: dict[str, float], titles: dict[str, str]) -> str:
    if not contributions:
        return ""
    item_id = max(contributions, key=lambda item: contributions[item])
    return titles.get(item_id, item_id)
