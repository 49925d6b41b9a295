# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The state of a training, and its checkpoint on disk."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from recsys_core.artifacts import read_json, write_json
from recsys_core.models.recommender import Recommender
from recsys_core.training.parallel import Shard

_FACTS = "training.json"
_RANK_SEEDS = 7_919  # difference between the seeds of two processes
_EMA_WARMUP = 10  # steps in which the average forgets the initial weights


class CurvePoint(NamedTuple):
    """An epoch's training loss in nats, and NDCG@10 if the epoch was validated."""

    epoch: int
    loss: float
    validation_ndcg_at_10: float | None


class TrainingState:
    """Weights, their average, the best weights, optimizer moments, learning curve and position.

    Two files are written in turn. `training.json`, written last, names the complete one, so a kill
    while saving leaves the previous checkpoint usable.

    Args:
        model: Trained in place. Its initial weights start the average.
        optimizers: Over the model's parameters.
        folder: Folder of the checkpoint. An existing checkpoint is restored.
        shard: This process's share of the training; None: a single process.
        ema_decay: Decay per step of the exponential moving average of the weights; 0: no average.

    Attributes:
        evaluated: The model to validate: the average, or the model itself.
        curve: One point per finished epoch.
        best_weights: The weights of the best validation so far.
        stale: Validations since the best one.
        epoch_steps: Optimizer steps in the current epoch.
    """

    def __init__(
        self,
        model: Recommender,
        optimizers: Sequence[torch.optim.Optimizer],
        folder: Path,
        shard: Shard | None = None,
        *,
        ema_decay: float = 0.0,
    ) -> None:
        self._model, self._optimizers, self._folder = model, optimizers, folder
        self._ema_decay = ema_decay
        self._shard = shard or Shard()
        self.evaluated = _copied(model).eval() if ema_decay else model
        self.curve: list[CurvePoint] = []
        self.best_weights = _copy(model)
        self._best_ndcg = -math.inf
        self.stale = 0
        self.n_steps = 0
        self.epoch_steps, self.epoch_loss, self.epoch_positions = 0, 0.0, 0
        self._saves = 0
        if (folder / _FACTS).exists():
            self._restore()

    @property
    def next_epoch(self) -> int:
        """Index of the current epoch, which is the number of finished ones."""
        return len(self.curve)

    def begin_epoch(self, seed: int) -> None:
        """Seed the random numbers of an epoch; a resumed epoch keeps its restored random state."""
        rank = self._shard.rank
        if not self.epoch_steps:
            torch.manual_seed(seed + rank * _RANK_SEEDS)
        elif rank:  # the saved random state is that of the first process
            torch.manual_seed(seed + rank * _RANK_SEEDS + self.epoch_steps)

    def finish_step(self, mean_loss: float, n_positions: int) -> None:
        """Count an optimizer step and update the average."""
        self.n_steps += 1
        self.epoch_steps += 1
        self.epoch_loss += mean_loss * n_positions
        self.epoch_positions += n_positions
        if self._ema_decay:
            decay = min(self._ema_decay, self.n_steps / (self.n_steps + _EMA_WARMUP))
            with torch.no_grad():
                torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
                    list(self.evaluated.parameters()), list(self._model.parameters()), 1 - decay
                )

    @property
    def mean_loss(self) -> float:
        """Mean loss of the epoch so far, in nats."""
        return self.epoch_loss / max(1, self.epoch_positions)

    def finish_epoch(self, ndcg: float | None) -> None:
        """Add the epoch to the curve, keep its weights if they are the best so far, and save."""
        self.curve.append(CurvePoint(self.next_epoch + 1, self.mean_loss, ndcg))
        self.epoch_steps, self.epoch_loss, self.epoch_positions = 0, 0.0, 0
        if ndcg is not None and ndcg > self._best_ndcg:
            self.best_weights, self._best_ndcg, self.stale = _copy(self.evaluated), ndcg, 0
        elif ndcg is not None:
            self.stale += 1
        self.save()

    def save(self) -> None:
        """Write a checkpoint; only the first of several processes writes."""
        if self._shard.leads:
            self._write()
        self._shard.barrier()

    def _write(self) -> None:
        self._saves += 1
        slot = f"checkpoint-{self._saves % 2}.safetensors"
        tensors = _prefixed("model.", _copy(self._model)) | _prefixed("best.", self.best_weights)
        if self._ema_decay:
            tensors |= _prefixed("average.", _copy(self.evaluated))
        for number, optimizer in enumerate(self._optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                # SparseAdam counts its steps in an int, AdamW in a tensor.
                moments = {name: torch.as_tensor(value) for name, value in moments.items()}
                tensors |= _prefixed(f"optimizer-{number}.{i}.", moments)
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        self._folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, self._folder / slot)
        facts = {
            "slot": slot,
            "saves": self._saves,
            "curve": self.curve,
            "best": None if self._best_ndcg == -math.inf else self._best_ndcg,
            "stale": self.stale,
            "steps": self.n_steps,
            "epoch": [self.epoch_steps, self.epoch_loss, self.epoch_positions],
        }
        write_json(self._folder / _FACTS, facts)

    def _restore(self) -> None:
        facts = read_json(self._folder / _FACTS)
        tensors = load_file(self._folder / facts["slot"])
        self._saves = facts["saves"]
        self.curve = [CurvePoint(*point) for point in facts["curve"]]
        self._best_ndcg = -math.inf if facts["best"] is None else facts["best"]
        self.stale = facts["stale"]
        self.n_steps = facts["steps"]
        self.epoch_steps, self.epoch_loss, self.epoch_positions = facts["epoch"]
        self._model.load_state_dict(_with_prefix(tensors, "model."))
        self.best_weights = _with_prefix(tensors, "best.")
        if self._ema_decay:
            self.evaluated.load_state_dict(_with_prefix(tensors, "average."))
        for number, optimizer in enumerate(self._optimizers):
            state = optimizer.state_dict()
            for name, value in _with_prefix(tensors, f"optimizer-{number}.").items():
                i, moment = name.split(".", maxsplit=1)
                whole = not value.is_floating_point()
                state["state"].setdefault(int(i), {})[moment] = value.item() if whole else value
            optimizer.load_state_dict(state)
        torch.set_rng_state(tensors["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])


def _copied(model: Recommender) -> Recommender:
    """A copy with its own weights that shares the content features."""
    return copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()})


def _copy(model: Recommender) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
