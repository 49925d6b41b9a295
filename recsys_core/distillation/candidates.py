"""What a distilling step compares: the whole catalogue, or candidates that stand for it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.training.loop import TrainingConfig
from recsys_core.training.losses.sampled_candidates import SampledCandidates
from recsys_core.training.losses.seen import Seen, SeenNegatives
from recsys_core.training.losses.selection import candidate_set_of, seen_items
from recsys_core.training.negative_sampling import CandidateSet, RestrictedBatch, comparable_loss


class BatchCandidates(NamedTuple):
    """The columns of the logits at the positions that have a target, counted from 1.

    Attributes:
        targets: Column of each target.
        listed: Column of each item that a label lists; 0 is padding, -1 an item that is no
            candidate. None without lists.
        seen: The items that don't compete at each position; None: all compete, or `sampled` says
            it.
        sampled: The items of the columns; None: all items, column c is row c.
    """

    targets: Int[Tensor, " positions"]
    listed: Int[Tensor, "positions k"] | None
    seen: Seen | None
    sampled: SampledCandidates | None


def distillation_candidates(counts: NDArray[np.int64], config: TrainingConfig) -> CandidateSet:
    """The candidates of a student: as without a teacher, but for a softmax in any case.

    Args:
        counts: `[n_items + 1]` training events by item_idx.
        config: Its `loss` and `n_negatives`.
    """
    loss = comparable_loss(config.loss)
    return candidate_set_of(counts, config.model_copy(update={"loss": loss}))


def candidates_of(
    restricted: RestrictedBatch,
    n_rows: int,
    device: torch.device,
    listed: Int[Tensor, "positions k"] | None = None,
) -> BatchCandidates:
    """The candidates of a batch. A position's positives are its target and what its label lists.

    Args:
        restricted: The batch.
        n_rows: Number of item vectors, the padding included.
        device: Where the loss is computed.
        listed: Rows of the items that a label lists, distinct, from 1; 0 is padding, -1 an item
            that is no candidate.
    """
    targets = restricted.batch.targets[restricted.batch.targets > 0].to(device)
    seen = seen_items(restricted, n_rows, device)
    if restricted.negatives is None or restricted.log_expected is None:
        return BatchCandidates(targets, listed, seen, None)
    positives, columns = targets[:, None], None
    if listed is not None:
        is_target = listed == positives
        after_target = torch.arange(2, 2 + listed.shape[1], device=device)
        columns = torch.where(listed > 0, torch.where(is_target, 1, after_target), listed)
        others = listed.masked_fill(is_target, 0).clamp(min=0)
        positives = torch.cat([positives, others], dim=1)
    assert seen is None or isinstance(seen, SeenNegatives)
    negatives, log_expected = restricted.negatives.to(device), restricted.log_expected.to(device)
    sampled = SampledCandidates(positives, negatives, log_expected, seen)
    return BatchCandidates(torch.ones_like(targets), columns, None, sampled)
