# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Several processes that train one model: each works on its rows of every batch.

All processes draw the same batches and negatives from the same seeds, so what is sent is gradients
alone. A position counts as much as in one process: the sum of what the processes found is the
gradient of the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from recsys_core.models.context import Context
from recsys_core.models.recommender import Recommender
from recsys_core.training.batching import Batch


@dataclass(frozen=True)
class Shard:
    """The processes of a training, and which one this is.

    Attributes:
        rank: This process's number, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Shard":
        """Those of the default process group, as torchrun makes it; alone where there is none."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process writes, validates and reports."""
        return self.rank == 0

    def rows_of(self, batch: Batch) -> Batch:
        """This process's rows of a batch; perhaps none."""
        if self.size == 1:
            return batch
        mine = slice(self.rank, None, self.size)
        history, targets = batch.history[mine], batch.targets[mine]
        length = max(1, int((history > 0).sum(dim=1).max())) if len(history) else 1
        of_row = torch.arange(len(batch.targets))[:, None].expand_as(batch.targets)
        chosen = of_row[batch.targets > 0] % self.size == self.rank
        states, weights, context = batch.teacher_states, batch.weights, batch.context
        return Batch(
            history[:, :length],
            targets[:, :length],
            None if states is None else states[chosen],
            None if weights is None else weights[chosen],
            None if context is None else Context(*(part[mine, :length] for part in context)),
        )

    def sum_gradients(self, model: Recommender, loss: Tensor) -> Tensor:
        """Sum gradients and loss over the processes; the gradients in place.

        Sparse gradients hold the same rows in the same order in every process.
        """
        if self.size == 1:
            return loss
        gradients = [parameter.grad for parameter in model.parameters()]
        values = [
            gradient._values() if gradient.is_sparse else gradient
            for gradient in gradients
            if gradient is not None
        ]
        flat = torch.cat([loss.reshape(1), *(value.reshape(-1) for value in values)])
        distributed.all_reduce(flat)
        _scatter(flat[1:], values)
        return flat[0]

    def broadcast(self, value: float) -> float:
        """The leading process's value."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(box, src=0)
        return float(box)

    def barrier(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            distributed.barrier()


def share_of(part: Batch, whole: Batch) -> float:
    """How much of a batch's weight lies in some of its rows."""
    return _mass(part) / _mass(whole)


def _mass(batch: Batch) -> float:
    if batch.weights is not None:
        return float(batch.weights.sum())
    return float((batch.targets > 0).sum())


def _scatter(flat: Tensor, values: Sequence[Tensor]) -> None:
    for value, part in zip(values, flat.split([v.numel() for v in values]), strict=True):
        value.copy_(part.view_as(value))
