# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Data-parallel training: each process computes the gradients of its rows of every batch.

All processes draw the same batches and negatives from the same seeds, so only gradients are sent.
Each process weights its positions by their share of the whole batch, so the sum over processes is
the gradient of the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from recsys_core.models.context import Context
from recsys_core.models.recommender import Recommender
from recsys_core.training.batch import Batch


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a batch's rows.

    Attributes:
        rank: Index of this share, from 0.
        size: Number of shares.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Shard":
        """This process's share in the default process group (torchrun); all rows without one."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes checkpoints and reports progress."""
        return self.rank == 0

    def rows_of(self, batch: Batch) -> Batch:
        """Every size-th row of a batch, starting at `rank`; possibly none."""
        if self.size == 1:
            return batch
        rows = slice(self.rank, None, self.size)
        history, targets = batch.history[rows], batch.targets[rows]
        length = max(1, int((history > 0).sum(dim=1).max())) if len(history) else 1
        of_row = torch.arange(len(batch.targets))[:, None].expand_as(batch.targets)
        chosen = of_row[batch.targets > 0] % self.size == self.rank
        states, weights, context = batch.teacher_states, batch.weights, batch.context
        earlier, sparse = batch.earlier, batch.sparse_labels
        return Batch(
            history[:, :length],
            targets[:, :length],
            None if states is None else states[chosen],
            None if weights is None else weights[chosen],
            None if context is None else Context(*(part[rows, :length] for part in context)),
            None if earlier is None else earlier[rows],
            None if sparse is None else sparse.each(lambda part: part[chosen]),
        )

    def sum_gradients(self, model: Recommender, loss: Tensor) -> Tensor:
        """Sum the gradients (in place) and the loss over all processes.

        Sparse gradients must hold the same rows in the same order in every process.

        Returns:
            The summed loss.
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
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(box, src=0)
        return float(box)

    def barrier(self) -> None:
        """Wait until all processes have arrived."""
        if self.size > 1:
            distributed.barrier()


def share_of(part: Batch, whole: Batch) -> float:
    """The share of a batch's total weight that lies in some of its rows."""
    return _mass(part) / _mass(whole)


def _mass(batch: Batch) -> float:
    if batch.weights is not None:
        return float(batch.weights.sum())
    return float((batch.targets > 0).sum())


def _scatter(flat: Tensor, values: Sequence[Tensor]) -> None:
    for value, part in zip(values, flat.split([v.numel() for v in values]), strict=True):
        value.copy_(part.view_as(value))
