# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The one training loop, for teacher, student, control and recovery after pruning."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recsys_core.models.recommender import Recommender
from recsys_core.settings import Progress, Settings, silent
from recsys_core.training.batching import Batch, TrainingSet
from recsys_core.training.checkpoint import CurvePoint, TrainingState

Loss = Callable[
    [Float[Tensor, "positions dim"], Float[Tensor, "items_and_padding dim"], Batch],
    Float[Tensor, ""],
]
"""Loss of the states at the positions that have a target, in row-major order."""

Validate = Callable[[Recommender], float]
"""NDCG@10 on validation users."""

Clock = Callable[[], float]


class TrainingConfig(Settings):
    """How a model is trained."""

    epochs: int = Field(
        default=40, ge=1, le=1000, description="Most epochs; early stopping may end it"
    )
    batch_size: int = Field(default=128, ge=1, le=65536, description="Windows (users) in a step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="Peak of the schedule, for AdamW"
    )
    adam_beta2: float = Field(
        default=0.98, ge=0.5, lt=1, description="Memory of AdamW's squared gradients, a step"
    )
    weight_decay: float = Field(default=0.01, ge=0, le=10, description="AdamW's, on matrices only")
    warmup_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of all steps to warm up in"
    )
    clip_norm: float = Field(
        default=1.0, gt=0, description="Gradients are scaled down to this norm"
    )
    ema_decay: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="The weights that are validated and kept are a moving average over about "
        "1 / (1 - this) steps; 0: the weights themselves",
    )
    checkpoint_minutes: float = Field(
        default=10, gt=0, description="Longest time between two checkpoints within an epoch"
    )
    validate_every: int = Field(default=2, ge=1, description="Epochs between validations")
    patience: int = Field(
        default=5, ge=1, description="Validations without a new best after which training stops"
    )
    validation_cases: int = Field(
        default=10_000,
        ge=1,
        description="Held-out events that a validation ranks, at most about this many",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of the encoder; the loss is always fp32. auto: bf16 on a GPU, fp32 "
        "on a CPU, where the encoder's matrices are too small to gain",
    )
    seed: int = Field(
        default=1, ge=0, le=2**31, description="Decides initial weights, batches and dropout"
    )


class TrainingError(RuntimeError):
    """Training cannot go on: the loss or its gradient is not finite."""


def fit(
    model: Recommender,
    training_set: TrainingSet,
    config: TrainingConfig,
    *,
    loss: Loss,
    validate: Validate,
    checkpoint: Path,
    clock: Clock,
    progress: Progress = silent,
) -> list[CurvePoint]:
    """Train in place and leave the model with its best validated weights.

    A checkpoint is written after every epoch and every `checkpoint_minutes`. Called again with the
    same arguments after a kill, training goes on behind the last one and ends with the same bits as
    if undisturbed (CPU).

    Args:
        model: On the device that it is trained on.
        training_set: Batches, epoch by epoch.
        config: How to train.
        loss: What to minimise.
        validate: What decides which weights are kept, and when to stop.
        checkpoint: Folder for the checkpoint; what it holds of an earlier call is resumed.
        clock: Seconds of a clock that only goes forward.
        progress: Told after each step and validation.

    Returns:
        The learning curve.

    Raises:
        TrainingError: The loss or its gradient became NaN or infinite.
    """
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config.weight_decay), betas=(0.9, config.adam_beta2)
    )
    state = TrainingState(model, optimizer, checkpoint, ema_decay=config.ema_decay)
    n_steps = config.epochs * training_set.steps_per_epoch
    saved_at = clock()
    while state.next_epoch < config.epochs and state.stale < config.patience:
        epoch = state.next_epoch
        state.begin_epoch(config.seed * 1_000_003 + epoch)
        model.train()
        for batch in islice(training_set.epoch(epoch, config.seed), state.epoch_steps, None):
            step = epoch * training_set.steps_per_epoch + state.epoch_steps
            rate = config.learning_rate * schedule(step, n_steps, config.warmup_share)
            value, n_positions = _step(model, optimizer, batch, config, loss, rate)
            if not math.isfinite(value):
                raise TrainingError(_not_finite(step, config, checkpoint))
            state.finish_step(value, n_positions)
            share = min(state.epoch_steps / training_set.steps_per_epoch, 1)
            if clock() - saved_at >= 60 * config.checkpoint_minutes:
                state.save()
                saved_at = clock()
            progress((epoch + share) / config.epochs, f"loss {state.mean_loss:.4f}")
        ndcg = None
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            ndcg = validate(state.evaluated.eval())
            progress((epoch + 1) / config.epochs, f"epoch {epoch + 1}, NDCG@10 {ndcg:.4f}")
        state.finish_epoch(ndcg)
        saved_at = clock()
    model.load_state_dict(state.best_weights)
    model.eval()
    return state.curve


def _step(
    model: Recommender,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: TrainingConfig,
    loss: Loss,
    learning_rate: float,
) -> tuple[float, int]:
    """One step down the gradient; none where loss or gradient are not finite.

    Returns:
        The loss, NaN where no step was made, and the number of positions.
    """
    device = model.id_embedding.device
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    item_vectors = model.item_vectors()
    with _autocast(device, config.precision):
        states = model.encode(batch.history.to(device), item_vectors)
    states = states.float()[batch.targets.to(device) > 0]
    value = loss(states, item_vectors, batch)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if not (value.isfinite() and norm.isfinite()):
        return math.nan, len(states)
    optimizer.step()
    return value.item(), len(states)


def _not_finite(step: int, config: TrainingConfig, checkpoint: Path) -> str:
    return (
        f"The training loss or its gradient is not finite at step {step}. Lower learning_rate (now "
        f"{config.learning_rate}) or set precision to fp32. The last good checkpoint, if there was "
        f"time for one, is in {checkpoint}."
    )


def schedule(step: int, n_steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 1 %."""
    warmup = max(1, round(warmup_share * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, n_steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def _parameter_groups(model: Recommender, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave embeddings, norms and biases alone."""
    embeddings = {id(model.id_embedding), id(model.position_embedding)}
    matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    if precision == "bf16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
