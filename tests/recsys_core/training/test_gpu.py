"""A GPU trains and labels as a CPU does, within what its arithmetic rounds away."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys_core.artifacts import Artifact
from recsys_core.distillation.labelling import label_bucket
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.settings import Progress, silent
from recsys_core.training.batching import TrainingSet
from recsys_core.training.checkpoint import CurvePoint
from recsys_core.training.loop import TrainingConfig, fit
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.losses.sampled_softmax import sampled_softmax
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
from recsys_core.training.validation import Validator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SIZE = ModelConfig(
    embedding_dim=16, n_layers=2, n_heads=2, ffn_dim=32, max_length=12, positions="rotary"
)
N_ITEMS = 16

Train = Callable[..., tuple[Recommender, list[CurvePoint]]]


@pytest.fixture
def train(obvious_world: Artifact, tmp_path: Path) -> Train:
    """Train on the obvious world; the same folder again resumes."""
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))
    items = pl.read_parquet(obvious_world.file("items.parquet"))
    validator = Validator(buckets, items, exclude_seen=True, max_cases=1000)

    def run(
        device: str,
        folder: str,
        *,
        size: ModelConfig = SIZE,
        progress: Progress = silent,
        **settings: object,
    ) -> tuple[Recommender, list[CurvePoint]]:
        fields = {"epochs": 30, "batch_size": 12, "learning_rate": 1e-2, "validate_every": 10}
        config = TrainingConfig.model_validate({**fields, **settings})
        torch.manual_seed(1)
        model = Recommender(N_ITEMS, size).to(device)
        training_set = TrainingSet(buckets, max_length=12, batch_size=config.batch_size)
        candidates = candidate_set_of(training_set.item_counts(N_ITEMS), config)
        curve = fit(
            model,
            training_set,
            config,
            candidates=candidates,
            loss=next_item_loss(config, candidates),
            validate=validator,
            checkpoint=tmp_path / folder,
            clock=time.monotonic,
            progress=progress,
        )
        return model, curve

    return run


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "gbce"])
def test_in_bf16_the_rule_is_found(train: Train, loss: str) -> None:
    _, curve = train("cuda", "gpu", loss=loss, n_negatives=8)
    ndcg = curve[-1].validation_ndcg_at_10
    assert ndcg is not None
    assert ndcg > 0.8


def test_in_fp32_the_curve_is_the_cpus(train: Train) -> None:
    size = SIZE.model_copy(update={"dropout": 0.0})
    settings = {"precision": "fp32", "epochs": 5}
    (_, cpu), (_, gpu) = (
        train(device, device, size=size, **settings) for device in ("cpu", "cuda")
    )
    assert [point.loss for point in gpu] == pytest.approx([point.loss for point in cpu], rel=1e-3)


def test_training_resumes_behind_its_checkpoint(train: Train) -> None:
    def stop_half_way(fraction: float, message: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    settings = {"epochs": 6, "validate_every": 2}
    _, undisturbed = train("cuda", "undisturbed", **settings)
    with pytest.raises(KeyboardInterrupt):
        train("cuda", "resumed", progress=stop_half_way, **settings)
    _, resumed = train("cuda", "resumed", **settings)
    assert [point.loss for point in resumed] == pytest.approx(
        [point.loss for point in undisturbed], rel=1e-2
    )


def test_labels_are_the_cpus(train: Train, obvious_world: Artifact, tmp_path: Path) -> None:
    model, _ = train("cuda", "gpu", epochs=2)
    bucket = sorted(obvious_world.file("histories").glob("*.parquet"))[0]
    labels: dict[str, pl.DataFrame] = {}
    for device in ("cuda", "cpu"):
        path = tmp_path / f"{device}.parquet"
        assert label_bucket(model.to(device), bucket, path) > 0
        labels[device] = pl.read_parquet(path)
    gpu, cpu = labels["cuda"], labels["cpu"]
    assert gpu.select("user_id", "position").equals(cpu.select("user_id", "position"))
    found, expected = (
        table["state"].to_numpy() * table["scale"].to_numpy()[:, None] for table in (gpu, cpu)
    )
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize("n_positions", [1, 700])
def test_losses_and_gradients_are_those_of_float64(n_positions: int) -> None:
    torch.manual_seed(0)
    states = torch.randn(n_positions, 16, device="cuda", requires_grad=True)
    vectors = torch.randn(101, 16, device="cuda", requires_grad=True)
    targets = torch.randint(1, 101, (n_positions,), device="cuda")
    loss = next_item_cross_entropy(states, vectors, targets)
    loss.backward()
    exact_states, exact_vectors = (x.detach().double().requires_grad_() for x in (states, vectors))
    logits = exact_states @ exact_vectors[1:].T
    exact = torch.nn.functional.cross_entropy(logits, targets - 1)
    exact.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    for found, expected in ((states, exact_states), (vectors, exact_vectors)):
        assert found.grad is not None
        assert expected.grad is not None
        np.testing.assert_allclose(found.grad.cpu(), expected.grad.float().cpu(), atol=1e-6)


def test_negatives_of_every_item_are_the_full_softmax() -> None:
    torch.manual_seed(0)
    states = torch.randn(50, 16, device="cuda")
    vectors = torch.randn(101, 16, device="cuda")
    targets = torch.randint(1, 101, (50,), device="cuda")
    sampled = sampled_softmax(
        states,
        vectors,
        targets,
        negatives=torch.arange(1, 101, device="cuda"),
        log_expected=torch.zeros(100, device="cuda"),
    )
    full = next_item_cross_entropy(states, vectors, targets)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-5)
