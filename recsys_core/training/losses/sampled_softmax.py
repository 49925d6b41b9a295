"""The sampled softmax, for large catalogues."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets
from recsys_core.training.losses.full_softmax import cross_entropy_to_gradient
from recsys_core.training.losses.sampled_candidates import SampledCandidates, candidate_loss
from recsys_core.training.losses.seen import SeenNegatives


def sampled_softmax(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    negatives: Int[Tensor, " negatives"],
    log_expected: Float[Tensor, " negatives"],
    weights: Float[Tensor, " positions"] | None = None,
    seen: SeenNegatives | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Softmax cross-entropy with a normaliser estimated from drawn negatives (logQ correction).

    exp(target) + Σ exp(negative − log expected count) is an unbiased estimate of the full
    normaliser. The target is always in the sum, so it needs no correction; if it was also drawn, it
    is removed from the negatives of its position.

    Args:
        states: The model's state at each position.
        item_vectors: Row 0 is padding.
        targets: Row of the next item, from 1.
        negatives: Rows of the drawn items, with repetitions.
        log_expected: log(number of draws × probability of the item) for each drawn item.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or there is not one target or weight per position.

    Example:
        If every item is drawn once, this is the full softmax.

        >>> import torch
        >>> states, item_vectors = torch.zeros(1, 4), torch.ones(3, 4)
        >>> every_item, once = torch.tensor([1, 2]), torch.zeros(2)
        >>> loss = sampled_softmax(
        ...     states, item_vectors, torch.tensor([1]), negatives=every_item, log_expected=once
        ... )
        >>> round(loss.item(), 4)
        0.6931

    Source: Bengio and Senécal 2008; the uncorrected target: Khrylchenko et al. 2025,
    arXiv:2507.09331.
    """
    check_targets(targets, states)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy_to_gradient(logits, torch.zeros_like(targets[rows]))

    return candidate_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=SampledCandidates(targets[:, None], negatives, log_expected, seen),
        weights=weights,
        seen=None,
        chunk_positions=chunk_positions,
    )
