from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_core.artifacts import Artifact
from recsys_core.evaluation.popularity import cold_start_by_item
from recsys_core.models.context import Context
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.validation import Validator

SIZE = ModelConfig(embedding_dim=32, n_layers=1, n_heads=1, ffn_dim=4, max_length=12)


class _Knowing(Recommender):
    """Knows the circle: its state after an item is the next item's vector."""

    def __init__(self, world: Artifact) -> None:
        super().__init__(16, SIZE, None)
        self.follows = torch.zeros(17, dtype=torch.int64)
        for path in world.file("histories").glob("*.parquet"):
            for items in pl.read_parquet(path)["item_idx"].to_list():
                self.follows[items[:-1]] = torch.tensor(items[1:])
        with torch.no_grad():
            self.id_embedding.copy_(torch.eye(17, SIZE.embedding_dim))

    def encode(
        self, history: torch.Tensor, item_vectors: torch.Tensor, context: Context | None = None
    ) -> torch.Tensor:
        del context
        return item_vectors[self.follows[history]]


def _validator(world: Artifact, *, exclude_seen: bool = True, max_cases: int = 1000) -> Validator:
    buckets = sorted(world.file("histories").glob("*.parquet"))
    items = pl.read_parquet(world.file("items.parquet"))
    return Validator(buckets, items, exclude_seen=exclude_seen, max_cases=max_cases)


def test_perfect_knowledge_scores_one(obvious_world: Artifact) -> None:
    assert _validator(obvious_world)(_Knowing(obvious_world).eval()) == 1.0


def test_ignorance_scores_as_chance_does(obvious_world: Artifact) -> None:
    torch.manual_seed(0)
    found = [_validator(obvious_world)(Recommender(16, SIZE, None).eval()) for _ in range(20)]
    assert 0.2 < np.mean(found) < 0.75


def test_a_new_user_gets_recent_popularity_with_any_model(
    obvious_world: Artifact,
    write_buckets: Callable[
        [Path, Sequence[Sequence[tuple[str, list[int], int, int]]]], list[Path]
    ],
    tmp_path: Path,
) -> None:
    """As in evaluation and in what is served; nothing is added to these scores."""
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))
    buckets += write_buckets(tmp_path, [[("a new user", [3], 0, 1), ("another", [5], 0, 1)]])
    items = pl.read_parquet(obvious_world.file("items.parquet"))
    validator = Validator(buckets, items, exclude_seen=True, max_cases=1000)
    torch.manual_seed(0)
    model = Recommender(16, SIZE, None).eval()
    bias = np.linspace(0, 3, 17, dtype=np.float32)
    without, with_bias = validator.with_biases(validator.ranker(model), [None, bias])
    popular = cold_start_by_item(items)
    popularity = validator.by_user(lambda h: np.broadcast_to(popular, (len(h), 17)))
    np.testing.assert_array_equal(without[:2], popularity[:2])
    np.testing.assert_array_equal(with_bias[:2], popularity[:2])
    assert not np.array_equal(with_bias, without)
    model.item_bias = torch.from_numpy(bias)
    np.testing.assert_array_equal(validator.by_user(validator.ranker(model)), with_bias)


def test_reading_stops_when_there_are_enough_cases(
    obvious_world: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys_core.training import validation

    read: list[Path] = []
    original = validation.read_cases

    def record(bucket: Path, items: pl.DataFrame, split: str, *, exclude_seen: bool) -> object:
        read.append(bucket)
        assert split == "validation"
        return original(bucket, items, "validation", exclude_seen=exclude_seen)

    monkeypatch.setattr(validation, "read_cases", record)
    _validator(obvious_world, max_cases=25)
    assert [path.stem for path in read] == ["bucket-000"]
    read.clear()
    _validator(obvious_world, max_cases=26)
    assert len(read) == 3


def test_no_cases_are_refused(obvious_world: Artifact) -> None:
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))
    items = pl.read_parquet(obvious_world.file("items.parquet"))
    with pytest.raises(ValueError, match="validation window holds no event"):
        Validator(buckets[1:2], items, exclude_seen=True, max_cases=10)
