"""Cold items get the vectors of items with similar content; known items keep theirs."""

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
from recsys_core.training.cold_items import fit_cold_items
from recsys_core.training.gradients import Loss
from recsys_core.training.loop import TrainingConfig, TrainingError, fit
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss

SIZE = ModelConfig(embedding_dim=16, n_layers=1, n_heads=2, ffn_dim=16, max_length=8, dropout=0.1)
COLD = np.array([17, 18, 19], np.int32)
TWINS = [3, 11, 14]  # known items with the content of the cold ones

Fitted = Callable[..., tuple[Recommender, torch.Tensor]]


@pytest.fixture
def fitted(obvious_world: Artifact, tmp_path: Path) -> Fitted:
    """Train on the circle of 16 items, and fit three cold ones with the same content.

    Returns the model, and its item vectors as they were before.
    """
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))

    def run(
        size: ModelConfig = SIZE,
        *,
        loss: str = "softmax",
        fitting_loss: Loss | None = None,
        learning_rate: float = 3e-3,
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
        model.zero_id_embeddings(COLD)
        training_set = TrainingSet(buckets, max_length=8, batch_size=16)
        candidates = candidate_set_of(training_set.item_counts(19), config)
        objective = next_item_loss(config, candidates)
        fit(
            model,
            training_set,
            config,
            candidates=candidates,
            loss=objective,
            validate=lambda _: 0.0,
            checkpoint=tmp_path / "checkpoint",
            clock=float,
        )
        _leave_everything_to_ids(model)
        before = model.item_vectors().detach().clone()
        fit_cold_items(
            model,
            COLD,
            training_set,
            config,
            candidates=candidates,
            loss=fitting_loss or objective,
            learning_rate=learning_rate,
            progress=progress,
        )
        return model, before

    return run


@torch.no_grad()
def _leave_everything_to_ids(model: Recommender) -> None:
    """The worst that training can do: content says nothing, not even of cold items."""
    assert model.content is not None
    model.id_embedding += model.content()
    model.content.clear()
    model.zero_id_embeddings(COLD)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_cold_items_get_the_vectors_of_their_twins(fitted: Fitted, loss: str) -> None:
    model, before = fitted(loss=loss)
    after = model.item_vectors().detach()
    torch.testing.assert_close(after[:17], before[:17], atol=1e-6, rtol=1e-5)
    assert not before[COLD].any()
    assert torch.cosine_similarity(after[COLD], after[TWINS]).min() > 0.8
    nearest = (after[COLD] @ after[1:17].T).argmax(dim=1) + 1
    assert nearest.tolist() == TWINS
    assert model.content is not None
    torch.testing.assert_close(after[COLD], model.content()[COLD])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_loss_improves_on_the_regression(fitted: Fitted, obvious_world: Artifact) -> None:
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

    of_fitted = loss_of_content(fitted()[0])
    assert of_fitted < loss_of_content(fitted(learning_rate=0.0)[0]) - 0.005


def test_the_regression_weighs_items_by_their_events() -> None:
    torch.manual_seed(0)
    features, vectors = torch.randn(6, 3), torch.randn(6, 2)
    features[0] = 0
    counts = torch.tensor([0, 5, 0, 1, 2, 4])
    found = cold_items.ridge_regression(
        ContentFusion({"text": features}, 2), vectors, counts, ridge=2.0
    )
    weights = (counts / 3).sqrt()[:, None]
    padded = torch.cat([features * weights, torch.eye(3) * 2.0**0.5])
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
    assert cold_items.find_cold_items(training_set, 5).tolist() == [2, 5]


def test_it_is_the_same_every_time_and_tells_how_far_it_is(fitted: Fitted) -> None:
    told: list[str] = []
    model, _ = fitted(progress=lambda _, message: told.append(message))
    again, _ = fitted()
    assert torch.equal(model.item_vectors(), again.item_vectors())
    assert told[0] == "fitting 3 cold items, step 1 of 4"


def test_a_bounded_model_is_left_alone(fitted: Fitted) -> None:
    model, before = fitted(SIZE.model_copy(update={"id_bound": 0.1}))
    assert torch.equal(model.item_vectors(), before)


def test_a_broken_loss_is_said(fitted: Fitted) -> None:
    def broken(states: torch.Tensor, vectors: torch.Tensor, _: object) -> torch.Tensor:
        return (states.sum() + vectors.sum()) * torch.nan

    with pytest.raises(
        TrainingError, match="fitting cold items or its gradient is not finite at step 0"
    ):
        fitted(fitting_loss=broken)
