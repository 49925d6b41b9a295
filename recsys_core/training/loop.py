# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The one training loop, for teacher, student, control and recovery after pruning."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from recsys_core.artifacts import read_json, write_json
from recsys_core.models.recommender import Recommender
from recsys_core.settings import Progress, Settings, silent
from recsys_core.training.batching import Batch, TrainingSet

Loss = Callable[
    [Float[Tensor, "positions dim"], Float[Tensor, "items_and_padding dim"], Batch],
    Float[Tensor, ""],
]
"""Loss of the states at the positions that have a target, in row-major order."""

Validate = Callable[[Recommender], float]
"""NDCG@10 on validation users."""


class TrainingConfig(Settings):
    """How a model is trained."""

    epochs: int = Field(
        default=40, ge=1, le=1000, description="Most epochs; early stopping may end it"
    )
    batch_size: int = Field(default=128, ge=1, le=65536, description="Windows (users) in a step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="Peak of the schedule, for AdamW"
    )
    weight_decay: float = Field(default=0.01, ge=0, le=10, description="AdamW's, on matrices only")
    warmup_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of all steps to warm up in"
    )
    clip_norm: float = Field(
        default=1.0, gt=0, description="Gradients are scaled down to this norm"
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
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="Arithmetic of the encoder; the loss is always fp32"
    )
    seed: int = Field(
        default=1, ge=0, le=2**31, description="Decides initial weights, batches and dropout"
    )


class CurvePoint(NamedTuple):
    """An epoch's training loss in nats, and NDCG@10 where it was validated."""

    epoch: int
    loss: float
    validation_ndcg_at_10: float | None


class TrainingError(RuntimeError):
    """Training cannot go on: the loss is not finite."""


def fit(
    model: Recommender,
    training_set: TrainingSet,
    config: TrainingConfig,
    *,
    loss: Loss,
    validate: Validate,
    checkpoint: Path,
    progress: Progress = silent,
) -> list[CurvePoint]:
    """Train in place and leave the model with its best validated weights.

    A checkpoint is written after every epoch. Called again with the same arguments after a kill,
    training goes on behind the last one and ends with the same bits as if undisturbed (CPU).

    Args:
        checkpoint: Folder for the checkpoint; what it holds of an earlier call is resumed.

    Returns:
        The learning curve.

    Raises:
        TrainingError: The loss became NaN or infinite.
    """
    optimizer = torch.optim.AdamW(_parameter_groups(model, config.weight_decay))
    state = _State(model, optimizer, checkpoint)
    n_steps = config.epochs * training_set.steps_per_epoch
    while state.next_epoch < config.epochs and state.stale < config.patience:
        epoch = state.next_epoch
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        mean_loss = _train_epoch(
            model,
            optimizer,
            training_set.epoch(epoch, config.seed),
            config,
            loss=loss,
            first_step=epoch * training_set.steps_per_epoch,
            n_steps=n_steps,
            progress=lambda share, text, epoch=epoch: progress(
                (epoch + share) / config.epochs, text
            ),
            steps_per_epoch=training_set.steps_per_epoch,
        )
        ndcg = None
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            ndcg = validate(model.eval())
            progress((epoch + 1) / config.epochs, f"epoch {epoch + 1}, NDCG@10 {ndcg:.4f}")
        state.finish_epoch(CurvePoint(epoch + 1, mean_loss, ndcg))
    model.load_state_dict(state.best_weights)
    model.eval()
    return state.curve


def _train_epoch(
    model: Recommender,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    config: TrainingConfig,
    *,
    loss: Loss,
    first_step: int,
    n_steps: int,
    steps_per_epoch: int,
    progress: Progress,
) -> float:
    model.train()
    device = model.id_embedding.device
    total, n_positions = 0.0, 0
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(
                first_step + step, n_steps, config.warmup_share
            )
        item_vectors = model.item_vectors()
        with _autocast(device, config.precision):
            states = model.encode(batch.history.to(device), item_vectors)
        states = states.float()[batch.targets.to(device) > 0]
        value = loss(states, item_vectors, batch)
        if not value.isfinite():
            msg = (
                f"The training loss is {value.item()} at step {first_step + step}. "
                f"Lower learning_rate (now {config.learning_rate}) or set precision to fp32."
            )
            raise TrainingError(msg)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        total += value.item() * len(states)
        n_positions += len(states)
        progress(min(step / steps_per_epoch, 1), f"loss {total / n_positions:.4f}")
    return total / n_positions


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
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


class _State:
    """What a checkpoint holds: weights, optimizer moments, the best weights, the curve."""

    def __init__(self, model: Recommender, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._model, self._optimizer, self._folder = model, optimizer, folder
        self.curve: list[CurvePoint] = []
        self.best_weights = _copy(model)
        self._best_ndcg = -math.inf
        self.stale = 0
        if (folder / "curve.json").exists():
            self._restore()

    @property
    def next_epoch(self) -> int:
        return len(self.curve)

    def finish_epoch(self, point: CurvePoint) -> None:
        self.curve.append(point)
        ndcg = point.validation_ndcg_at_10
        if ndcg is not None and ndcg > self._best_ndcg:
            self.best_weights, self._best_ndcg, self.stale = _copy(self._model), ndcg, 0
        elif ndcg is not None:
            self.stale += 1
        self._save()

    def _save(self) -> None:
        """Two slots in turn, and the curve last: it names the slot that is whole."""
        slot = f"epoch-{len(self.curve) % 2}.safetensors"
        tensors = {f"model.{name}": tensor for name, tensor in _copy(self._model).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for i, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, self._folder / slot)
        facts = {"curve": self.curve, "best": self._best_ndcg, "stale": self.stale, "slot": slot}
        if self._best_ndcg == -math.inf:
            facts["best"] = None
        write_json(self._folder / "curve.json", facts)

    def _restore(self) -> None:
        facts = read_json(self._folder / "curve.json")
        tensors = load_file(self._folder / facts["slot"])
        self.curve = [CurvePoint(*point) for point in facts["curve"]]
        self._best_ndcg = -math.inf if facts["best"] is None else facts["best"]
        self.stale = facts["stale"]
        self._model.load_state_dict(_with_prefix(tensors, "model."))
        self.best_weights = _with_prefix(tensors, "best.")
        state = self._optimizer.state_dict()
        for name, value in _with_prefix(tensors, "optimizer.").items():
            i, moment = name.split(".", maxsplit=1)
            state["state"].setdefault(int(i), {})[moment] = value
        self._optimizer.load_state_dict(state)


def _copy(model: Recommender) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
