"""The loss that `training.loss` names, and its candidates."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.training.gradients import Loss
from recsys_core.training.loop import TrainingConfig
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.losses.fused_softmax import check_fused_loss, fused_cross_entropy
from recsys_core.training.losses.gbce import gbce
from recsys_core.training.losses.sampled_softmax import sampled_softmax
from recsys_core.training.losses.seen import Seen, SeenItems, SeenNegatives
from recsys_core.training.negative_sampling import (
    CandidateSet,
    FullCatalogue,
    RestrictedBatch,
    SampledNegatives,
    draws_negatives,
)


def candidate_set_of(counts: NDArray[np.int64], config: TrainingConfig) -> CandidateSet:
    """The candidates for the loss that `config.loss` names.

    Args:
        counts: `[n_items + 1]` training events by item_idx.
        config: Its `loss` and `n_negatives`.
    """
    full = FullCatalogue(counts)
    if not draws_negatives(config.loss, full.n_items):
        return full
    uniform = config.loss == "gbce"
    return SampledNegatives(counts, n_negatives=config.n_negatives, uniform=uniform)


def next_item_loss(config: TrainingConfig, candidates: CandidateSet) -> Loss:
    """The loss on the event that came next, as `config.loss` says.

    Raises:
        FusedLossError: `config.fused_loss` is on, but the extra is not installed.
    """
    if config.fused_loss:
        check_fused_loss()

    def loss(
        states: Float[Tensor, "positions dim"],
        item_vectors: Float[Tensor, "rows dim"],
        restricted: RestrictedBatch,
    ) -> Float[Tensor, ""]:
        device, batch = states.device, restricted.batch
        targets = batch.targets[batch.targets > 0].to(device)
        weights = None if batch.weights is None else batch.weights.to(device)
        seen = seen_items(restricted, len(item_vectors), device)
        on_gpu = device.type == "cuda"
        if restricted.negatives is None or restricted.log_expected is None:
            if config.fused_loss and on_gpu and weights is None and seen is None:
                return fused_cross_entropy(states, item_vectors, targets)
            return next_item_cross_entropy(
                states, item_vectors, targets, weights=weights, seen=seen
            )
        assert seen is None or isinstance(seen, SeenNegatives)
        negatives = restricted.negatives.to(device)
        if config.loss == "gbce":
            return gbce(
                states,
                item_vectors,
                targets,
                negatives=negatives,
                n_items=candidates.n_items,
                weights=weights,
                seen=seen,
            )
        return sampled_softmax(
            states,
            item_vectors,
            targets,
            negatives=negatives,
            log_expected=restricted.log_expected.to(device),
            weights=weights,
            seen=seen,
        )

    return loss


def seen_items(restricted: RestrictedBatch, n_rows: int, device: torch.device) -> Seen | None:
    """The candidates that are in the histories of a batch; None: they compete too.

    Args:
        restricted: The batch.
        n_rows: Number of item vectors, the padding included.
        device: Where the loss is computed.
    """
    batch, negatives = restricted.batch, restricted.negatives
    if batch.earlier is None:
        return None
    history, earlier = batch.history.to(device), batch.earlier.to(device)
    targets = batch.targets.to(device)
    if negatives is None:
        return SeenItems(history, targets, earlier)
    return SeenNegatives(history, targets, earlier, negatives.to(device), n_rows=n_rows)
