# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The training loop of teacher, student, control and recovery after pruning."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from pydantic import Field

from recsys_core.models.recommender import Recommender
from recsys_core.settings import Progress, Settings, silent
from recsys_core.training.batching import TrainingSet
from recsys_core.training.checkpoint import CurvePoint, TrainingState
from recsys_core.training.gradients import Loss, Precision, gradient_step
from recsys_core.training.negative_sampling import CandidateSet, LossName
from recsys_core.training.parallel import Shard

Validate = Callable[[Recommender], float]
"""NDCG@10 on validation users."""

Clock = Callable[[], float]


class LoopConfig(Settings):
    """How long a model is trained, in which steps, and which of its weights are kept."""

    epochs: int = Field(
        default=40, ge=1, le=1000, description="Most epochs; early stopping may end training before"
    )
    batch_size: int = Field(
        default=128, ge=1, le=65536, description="Windows (one per user) in a step"
    )
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="Peak learning rate of AdamW"
    )
    adam_beta2: float = Field(
        default=0.98,
        ge=0.5,
        lt=1,
        description="Decay per step of AdamW's average of squared gradients",
    )
    weight_decay: float = Field(
        default=0.01, ge=0, le=10, description="AdamW's weight decay, applied to matrices only"
    )
    warmup_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of all steps in which the learning rate rises to its peak",
    )
    clip_norm: float = Field(
        default=1.0, gt=0, description="Larger gradients are scaled down to this norm"
    )
    ema_decay: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay per step of the moving average of the weights, which is validated and "
        "kept; it covers about 1 / (1 - ema_decay) steps. 0: no average",
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
        description="Held-out events that a validation ranks, at most approximately",
    )
    precision: Precision = Field(
        default="auto",
        description="Arithmetic of the encoder. auto: bf16 on a GPU, fp32 on a CPU, where the "
        "encoder's matrices are too small to gain. The loss is fp32; with bf16 on a GPU its "
        "products are TF32",
    )
    seed: int = Field(
        default=1,
        ge=0,
        le=2**31,
        description="Determines initial weights, batches, negatives and dropout",
    )


class TrainingConfig(LoopConfig):
    """How a model is trained: the loop, and the loss on the events that came next."""

    loss: LossName = Field(
        default="auto",
        description="softmax: over all items; sampled_softmax and gbce: over negatives drawn for "
        "each batch; auto: softmax up to 50,000 items, sampled_softmax above",
    )
    n_negatives: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Negatives drawn per batch; unused with softmax",
    )
    fused_loss: bool = Field(
        default=False,
        description="Use Liger's fused kernel for the full softmax, on a GPU, if all positions "
        "have the same weight and repeats are allowed (prepare.exclude_seen is off). Needs "
        "pip install 'recdistill[gpu]'",
    )


class TrainingError(RuntimeError):
    """The loss or its gradient is not finite."""


def fit(
    model: Recommender,
    training_set: TrainingSet,
    config: LoopConfig,
    *,
    candidates: CandidateSet,
    loss: Loss,
    validate: Validate,
    checkpoint: Path,
    clock: Clock,
    progress: Progress = silent,
) -> list[CurvePoint]:
    """Train in place. The model ends with its best validated weights, in evaluation mode.

    A checkpoint is written after every epoch and every `checkpoint_minutes`. Called again with the
    same arguments after a kill, training resumes from it; on a CPU the result is byte-identical to
    that of an uninterrupted training. If every process of a torch.distributed group calls this,
    each computes its share of every batch, and the first one validates and writes.

    Args:
        model: On the device to train on.
        training_set: The batches of every epoch.
        config: The settings.
        candidates: The items that each target is compared with.
        loss: The loss to minimise.
        validate: Its value decides which weights are kept and when training stops.
        checkpoint: Folder of the checkpoint. An existing checkpoint is resumed.
        clock: A monotonic clock, in seconds.
        progress: Called after each step and validation.

    Returns:
        The learning curve.

    Raises:
        TrainingError: The loss or its gradient became NaN or infinite.
    """
    shard = Shard.current()
    optimizers = make_optimizers(model, config, sparse=candidates.sampled)
    state = TrainingState(model, optimizers, checkpoint, shard, ema_decay=config.ema_decay)
    n_steps = config.epochs * training_set.steps_per_epoch
    saved_at = clock()
    while state.next_epoch < config.epochs and state.stale < config.patience:
        epoch = state.next_epoch
        state.begin_epoch(config.seed * 1_000_003 + epoch)
        model.train()
        for batch in islice(training_set.epoch(epoch, config.seed), state.epoch_steps, None):
            step = epoch * training_set.steps_per_epoch + state.epoch_steps
            rate = config.learning_rate * schedule(step, n_steps, config.warmup_share)
            restricted = candidates.restrict(batch, (config.seed, epoch, state.epoch_steps))
            items = None if restricted.items is None else restricted.items.to(model.device)
            value = gradient_step(
                model,
                optimizers,
                model.item_vectors(items, sparse=restricted.negatives is not None),
                restricted,
                loss,
                shard,
                learning_rate=rate,
                clip_norm=config.clip_norm,
                precision=config.precision,
            )
            if not math.isfinite(value):
                raise TrainingError(_not_finite(step, config, checkpoint))
            state.finish_step(value, int((batch.targets > 0).sum()))
            share = min(state.epoch_steps / training_set.steps_per_epoch, 1)
            if clock() - saved_at >= 60 * config.checkpoint_minutes:
                state.save()
                saved_at = clock()
            if shard.leads:
                progress((epoch + share) / config.epochs, f"loss {state.mean_loss:.4f}")
        ndcg = None
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            ndcg = shard.broadcast(validate(state.evaluated.eval()) if shard.leads else math.nan)
            progress((epoch + 1) / config.epochs, f"epoch {epoch + 1}, NDCG@10 {ndcg:.4f}")
        state.finish_epoch(ndcg)
        saved_at = clock()
    model.load_state_dict(state.best_weights)
    model.eval()
    return state.curve


def _not_finite(step: int, config: LoopConfig, checkpoint: Path) -> str:
    return (
        f"The training loss or its gradient is not finite at step {step}. Lower learning_rate (now "
        f"{config.learning_rate}) or set precision to fp32. The last good checkpoint, if "
        f"one was written, is in {checkpoint}."
    )


def schedule(step: int, n_steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine decay to 1 %.

    Example:
        >>> [round(schedule(step, 8, 0.25), 2) for step in range(8)]
        [0.5, 1.0, 1.0, 0.93, 0.75, 0.51, 0.26, 0.08]
    """
    warmup = max(1, round(warmup_share * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, n_steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def make_optimizers(
    model: Recommender, config: LoopConfig, *, sparse: bool
) -> list[torch.optim.Optimizer]:
    """AdamW, and SparseAdam for the id embedding if its gradients are sparse.

    Weight decay applies to matrices only: not to embeddings, norms and biases.
    """
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and not name.endswith(("_embedding", "_bias"))
    ]
    apart = {id(p) for p in matrices} | ({id(model.id_embedding)} if sparse else set())
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in apart], "weight_decay": 0.0},
    ]
    betas = (0.9, config.adam_beta2)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=betas)]
    if sparse:
        optimizers.append(torch.optim.SparseAdam([model.id_embedding], betas=betas))
    return optimizers
