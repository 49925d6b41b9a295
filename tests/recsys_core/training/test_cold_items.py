"""Items that nobody has had lie where items of like content do; known ones stay where they were."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_core.artifacts import Artifact
from recsys_core.models.fusion import ContentFusion
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.settings import Progress, silent
from recsys_core.training import cold_items
from recsys_core.training.batching import TrainingSet
from recsys_core.training.cold_items import place_unseen_items
from recsys_core.training.gradients import Loss
from recsys_core.training.loop import TrainingConfig, TrainingError, fit
from recsys_core.training.losses import next_item_cross_entropy
from recsys_core.training.objectives import competition_of, next_item_loss

SIZE = ModelConfig(embedding_dim=16, n_layers=1, n_heads=2, ffn_dim=16, max_length=8, dropout=0.1)
UNSEEN = np.array([17, 18, 19], np.int32)
TWINS = [3, 11, 14]  # known items with the content of the unseen ones

Place = Callable[..., tuple[Recommender, torch.Tensor]]


@pytest.fixture
def place(obvious_world: Artifact, tmp_path: Path) -> Place:
    """Train on the circle of 16 items, three more of like content unseen, and place those.

    Returns the model, and its item vectors as they were before.
    """
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))

    def run(
        size: ModelConfig = SIZE,
        *,
        loss: str = "softmax",
        placing_loss: Loss | None = None,
        progress: Progress = silent,
    ) -> tuple[Recommender, torch.Tensor]:
        config = TrainingConfig.model_validate(
            {"epochs": 15, "batch_size": 16, "learning_rate": 1e-2, "validate_every": 15}
            | {"precision": "fp32", "loss": loss, "n_negatives": 12}
        )
        torch.manual_seed(0)
        content = torch.eye(17)[[*range(17), *TWINS]]
        content[0] = 0
        model = Recommender(19, size, {"text": content})
        model.forget_ids(UNSEEN)
        training_set = TrainingSet(buckets, max_length=8, batch_size=16)
        competition = competition_of(training_set.item_counts(19), config)
        objective = next_item_loss(config, competition)
        fit(
            model,
            training_set,
            config,
            competition=competition,
            loss=objective,
            validate=lambda _: 0.0,
            checkpoint=tmp_path / "checkpoint",
            clock=float,
        )
        _leave_everything_to_ids(model)
        before = model.item_vectors().detach().clone()
        place_unseen_items(
            model,
            UNSEEN,
            training_set,
            config,
            competition=competition,
            loss=placing_loss or objective,
            progress=progress,
        )
        return model, before

    return run


@torch.no_grad()
def _leave_everything_to_ids(model: Recommender) -> None:
    """The worst that training can do: content says nothing, not even of unseen items."""
    assert model.content is not None
    model.id_embedding += model.content()
    model.content.clear()
    model.forget_ids(UNSEEN)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_unseen_items_come_to_lie_by_their_likes(place: Place, loss: str) -> None:
    model, before = place(loss=loss)
    after = model.item_vectors().detach()
    torch.testing.assert_close(after[:17], before[:17], atol=1e-6, rtol=1e-5)
    assert not before[UNSEEN].any()
    assert torch.cosine_similarity(after[UNSEEN], after[TWINS]).min() > 0.8
    nearest = (after[UNSEEN] @ after[1:17].T).argmax(dim=1) + 1
    assert nearest.tolist() == TWINS
    assert model.content is not None
    torch.testing.assert_close(after[UNSEEN], model.content()[UNSEEN])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_loss_improves_on_the_regression(
    place: Place, monkeypatch: pytest.MonkeyPatch, obvious_world: Artifact
) -> None:
    """Of a model that knows items by their content alone."""

    @torch.no_grad()
    def loss_of_content(model: Recommender) -> float:
        buckets = sorted(obvious_world.file("histories").glob("*.parquet"))
        total, n_positions = 0.0, 0
        known, alone = model.item_vectors(), model.content() if model.content else None
        assert alone is not None
        for batch in TrainingSet(buckets, max_length=8, batch_size=16).epoch(0, 1):
            targets = batch.targets[batch.targets > 0]
            states = model.encode(batch.history, known)[batch.targets > 0]
            total += float(next_item_cross_entropy(states, alone[:17], targets)) * len(targets)
            n_positions += len(targets)
        return total / n_positions

    placed = loss_of_content(place()[0])
    monkeypatch.setattr(cold_items, "_LEARNING_RATE", 0.0)
    assert placed < loss_of_content(place()[0]) - 0.005


def test_the_regression_weighs_items_by_their_events() -> None:
    torch.manual_seed(0)
    features, vectors = torch.randn(6, 3), torch.randn(6, 2)
    features[0] = 0
    counts = torch.tensor([0, 5, 0, 1, 2, 4])
    found = cold_items._ridge_regression(ContentFusion({"text": features}, 2), vectors, counts)
    weights = (counts / 3).sqrt()[:, None]
    padded = torch.cat([features * weights, torch.eye(3) * cold_items._RIDGE**0.5])
    expected = torch.linalg.lstsq(padded, torch.cat([vectors * weights, torch.zeros(3, 2)]))
    torch.testing.assert_close(found, expected.solution.T, atol=1e-5, rtol=1e-4)


def test_items_are_seen_by_events_of_any_kind(
    write_buckets: Callable[..., list[Path]], tmp_path: Path
) -> None:
    [bucket] = write_buckets(tmp_path / "histories", [[("u", [1, 3, 4, 3], 4, 4)]])
    users = pl.read_parquet(bucket)
    weights = pl.Series([[1.0, 0.0, 1.0, 0.0]], dtype=users.schema["target_weight"])
    users.with_columns(target_weight=weights).write_parquet(bucket)
    training_set = TrainingSet([bucket], max_length=8, batch_size=4)
    assert cold_items.unseen_items(training_set, 5).tolist() == [2, 5]


def test_it_is_the_same_every_time_and_tells_how_far_it_is(place: Place) -> None:
    told: list[str] = []
    model, _ = place(progress=lambda _, message: told.append(message))
    again, _ = place()
    assert torch.equal(model.item_vectors(), again.item_vectors())
    assert told[0] == "placing 3 unseen items, step 1 of 4"


def test_a_bounded_model_is_left_alone(place: Place) -> None:
    model, before = place(SIZE.model_copy(update={"id_bound": 0.1}))
    assert torch.equal(model.item_vectors(), before)


def test_a_broken_loss_is_said(place: Place) -> None:
    def broken(states: torch.Tensor, vectors: torch.Tensor, _: object) -> torch.Tensor:
        return (states.sum() + vectors.sum()) * torch.nan

    with pytest.raises(
        TrainingError, match="placing unseen items or its gradient is not finite at step 0"
    ):
        place(placing_loss=broken)
