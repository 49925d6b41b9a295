"""What the stages that train share: building a network, running the loop, keeping the result."""

import time

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recsys_core.artifacts import Artifact, write_json
from recsys_core.distillation.soft_labels import SoftLabels
from recsys_core.models.checkpoint import save_model
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.settings import Settings
from recsys_core.training.batching import Batch, TrainingSet
from recsys_core.training.loop import Loss, TrainingConfig, fit
from recsys_core.training.losses import next_item_cross_entropy
from tasks.prepared import Prepared
from tasks.stage import StageRun, Summary


class NetworkConfig(Settings):
    """A network and how it is trained."""

    model: ModelConfig = Field(default=ModelConfig(), description="Size of the network")
    training: TrainingConfig = Field(default=TrainingConfig(), description="How it is trained")
    content_features: int = Field(
        default=256,
        ge=0,
        le=65536,
        description="Width of the hashed titles and categories; 0 for none",
    )


def build_network(data: Prepared, config: NetworkConfig) -> Recommender:
    """A network over the prepared catalogue, with initial weights from the training seed."""
    torch.manual_seed(config.training.seed)
    return Recommender(len(data.items), config.model, data.content(config.content_features))


def train_without_teacher(run: StageRun, config: NetworkConfig, prepared: Artifact) -> Summary:
    """Train a network on what really came next."""
    data = Prepared(prepared)
    return train_and_save(run, build_network(data, config), data, config.training, loss=hard_loss)


def train_and_save(
    run: StageRun,
    model: Recommender,
    data: Prepared,
    config: TrainingConfig,
    *,
    loss: Loss,
    labels: SoftLabels | None = None,
) -> Summary:
    """Train with checkpoints in the stage's scratch folder.

    Writes `model.safetensors`, `model.json` and `curve.json`.
    """
    model = model.to(run.night.device)
    training_set = TrainingSet(
        data.buckets,
        max_length=model.config.max_length,
        batch_size=config.batch_size,
        labels=labels,
    )
    curve = fit(
        model,
        training_set,
        config,
        loss=loss,
        validate=data.validator(config.validation_cases),
        checkpoint=run.scratch / "checkpoint",
        clock=time.monotonic,
        progress=run.progress,
    )
    save_model(run.out, model)
    write_json(run.out / "curve.json", [point._asdict() for point in curve])
    validated = {
        point.validation_ndcg_at_10: point.epoch
        for point in reversed(curve)
        if point.validation_ndcg_at_10 is not None
    }
    best = max(validated)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(curve),
        "best_epoch": validated[best],
        "validation_ndcg_at_10": best,
    }


def hard_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    batch: Batch,
) -> Float[Tensor, ""]:
    """Cross-entropy of what really came next."""
    targets = batch.targets[batch.targets > 0].to(states.device)
    return next_item_cross_entropy(states, item_vectors, targets)
