"""The baselines of a night."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys_core.artifacts import Artifact
from tasks.contracts.split import Split
from tasks.training import baselines as module
from tasks.training.baselines import baselines
from tasks.training.prepared import Prepared


@pytest.fixture
def repeating(
    obvious_world: Artifact, write_buckets: Callable[..., list[Path]], tmp_path: Path
) -> Prepared:
    """Each user takes one item again and again, and it comes next."""
    prepared = replace(obvious_world, folder=tmp_path / "prepared")
    shutil.copytree(obvious_world.folder, prepared.folder)
    users = [
        (f"u{i:02d}", [item, 16, 16 - i % 3, item, item, item], 4, 5)
        for i in range(60)
        for item in [1 + i % 12]
    ]
    write_buckets(prepared.folder / "histories", [users, [], []])
    split = Split.load(prepared).model_copy(update={"exclude_seen": False})
    split.save(prepared.folder)
    return Prepared(prepared)


def test_where_items_return_item_knn_counts_what_a_user_had(
    repeating: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    validator = repeating.validator(1_000)
    assert validator.by_user(baselines(repeating)["item_knn"]).mean() == 1
    monkeypatch.setattr(module, "OWN_WEIGHTS", (0.0,))
    assert validator.by_user(baselines(repeating)["item_knn"]).mean() < 0.5


def test_where_items_do_not_return_nothing_is_chosen(
    obvious_world: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    ranker = module.item_knn_ranker

    def noted(*arguments: Any, **settings: Any) -> Any:
        given.append(settings)
        return ranker(*arguments, **settings)

    monkeypatch.setattr(module, "item_knn_ranker", noted)
    baselines(Prepared(obvious_world))
    assert given == [{"own_weight": 0.0}]
