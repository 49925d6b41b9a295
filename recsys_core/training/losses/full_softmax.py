"""The full softmax: cross-entropy of the next item over all candidates."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets, chunked_loss
from recsys_core.training.losses.seen import Seen


def next_item_cross_entropy(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of each position's next item under a softmax over all candidates.

    Args:
        states: The model's state at each position.
        item_vectors: Vectors of the candidates; row 0 is padding.
        targets: Row of the next item, from 1.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or there is not one target or weight per position.

    Example:
        A state that scores two items equally is as uncertain as a coin toss: ln 2 nats.

        >>> import torch
        >>> states = torch.zeros(1, 4)
        >>> item_vectors = torch.ones(3, 4)  # padding and two items
        >>> loss = next_item_cross_entropy(states, item_vectors, torch.tensor([1]))
        >>> round(loss.item(), 4)
        0.6931
    """
    check_targets(targets, states)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy_to_gradient(logits, targets[rows] - 1)

    return chunked_loss(
        states,
        item_vectors[1:],
        loss_and_gradient,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )


def cross_entropy_to_gradient(
    logits: Float[Tensor, "positions items"], targets: Int[Tensor, " positions"]
) -> Float[Tensor, " positions"]:
    """Cross-entropy of each position; overwrites the logits with its gradient, softmax − onehot."""
    targets = targets[:, None]
    target_logits = logits.gather(1, targets)[:, 0]
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    normalizers = log_normalizers(largest, logits)
    logits.scatter_add_(1, targets, logits.new_full(targets.shape, -1.0))
    return normalizers - target_logits


def log_normalizers(
    largest: Float[Tensor, " positions"], probabilities: Float[Tensor, "positions items"]
) -> Float[Tensor, " positions"]:
    """The log of Σ exp(logit) at each position, from its largest logit and its softmax."""
    return largest - probabilities.amax(dim=1).log()  # the largest probability never underflows
