"""What the logits of a distilling step are over: the catalogue, or candidates that stand for it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.training.loop import TrainingConfig
from recsys_core.training.losses.own_and_drawn import OwnAndDrawn
from recsys_core.training.losses.seen import Seen, SeenNegatives
from recsys_core.training.losses.selection import candidate_set_of, seen_items
from recsys_core.training.negative_sampling import CandidateSet, RestrictedBatch


class Columns(NamedTuple):
    """The columns of the logits at the positions that have a target.

    Attributes:
        targets: Column of each target, from 1.
        listed: Column of each item that a sparse label lists, from 1; 0: none. None without such
            labels.
        seen: The items that don't compete at each position; None: all compete, or `candidates` say
            it.
        candidates: The items of the columns; None: those of the catalogue.
    """

    targets: Int[Tensor, " positions"]
    listed: Int[Tensor, "positions k"] | None
    seen: Seen | None
    candidates: OwnAndDrawn | None


def distillation_candidates(counts: NDArray[np.int64], config: TrainingConfig) -> CandidateSet:
    """The candidates of a student: as without a teacher, but for a softmax in any case.

    gBCE has no distribution that could be compared with the teacher's, so it counts as `auto`.

    Args:
        counts: `[n_items + 1]` training events by item_idx.
        config: Its `loss` and `n_negatives`.
    """
    if config.loss == "gbce":
        config = config.model_copy(update={"loss": "auto"})
    return candidate_set_of(counts, config)


def columns_of(
    restricted: RestrictedBatch,
    n_rows: int,
    device: torch.device,
    listed: Int[Tensor, "positions k"] | None = None,
) -> Columns:
    """The columns of a batch. A position's own candidates are its target and what its label lists.

    Args:
        restricted: The batch.
        n_rows: Number of item vectors, the padding included.
        device: Where the loss is computed.
        listed: Rows of the items that a sparse label lists, distinct, from 1; 0: none.
    """
    targets = restricted.batch.targets[restricted.batch.targets > 0].to(device)
    seen = seen_items(restricted, n_rows, device)
    if restricted.negatives is None or restricted.log_expected is None:
        return Columns(targets, listed, seen, None)
    own, columns = targets[:, None], None
    if listed is not None:
        is_target = listed == own
        after_target = torch.arange(2, 2 + listed.shape[1], device=device)
        columns = torch.where(is_target, 1, after_target).masked_fill_(listed == 0, 0)
        own = torch.cat([own, listed.masked_fill(is_target, 0)], dim=1)
    assert seen is None or isinstance(seen, SeenNegatives)  # there are drawn items
    drawn, log_expected = restricted.negatives.to(device), restricted.log_expected.to(device)
    candidates = OwnAndDrawn(own, drawn, log_expected, seen)
    return Columns(torch.ones_like(targets), columns, None, candidates)
