"""The distillation loss for ranked lists without scores, such as those of a language model."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.distillation.losses.listed import check_labels, find_listed, softmax_of_rest_
from recsys_core.training.losses.own_and_drawn import OwnAndDrawn, catalogue_loss
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen


def ranked_list_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    top_ids: Int[Tensor, "positions k"],
    kd_weight: float,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    candidates: OwnAndDrawn | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × negative log-likelihood of the list, divided by its length.

    The likelihood is Plackett and Luce's: the first item is drawn from all items by the student's
    softmax, the second one from all others, and so on. An item therefore competes with the items
    below it in the list and with all that are not listed, whose order is left open. RRD draws some
    of those; here all of them count. An item of the list that does not compete is left out.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        top_ids: Rows of the listed items, from 1, best first; 0: none. A position without any has
            no label; only its hard target counts.
        kd_weight: Weight of the list; 0 leaves the cross-entropy.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        candidates: The columns, where the catalogue is too large; None: all rows. With them targets
            and listed items are columns from 1.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or the weight is impossible.

    Example:
        A list of one item is a second hard target: ln 2 + ln 2 for two even items.

        >>> import torch
        >>> loss = ranked_list_loss(
        ...     torch.zeros(1, 4),
        ...     torch.ones(3, 4),
        ...     torch.tensor([1]),
        ...     top_ids=torch.tensor([[2, 0]]),
        ...     kd_weight=1.0,
        ... )
        >>> round(loss.item(), 4)
        1.3863

    Source: Kang et al. 2020, DE-RRD, arXiv:2012.04357, section 4.2; Plackett 1975.
    """
    check_labels(top_ids, None, targets, states, kd_weight=kd_weight)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        target = targets[rows, None] - 1
        top = find_listed(logits, top_ids[rows])
        target_logits = logits.gather(1, target)[:, 0]
        log_rest = softmax_of_rest_(logits, top)
        # What each listed item competes with: itself, those below it, and those not listed.
        below = top.logits.flip(1).logcumsumexp(dim=1).flip(1)
        rivals = torch.logaddexp(below, log_rest[:, None])
        normalizers = rivals[:, 0]
        # Σ over the draws that an item takes part in of its probability there, in logarithms
        # because each logit may be large; a listed item takes part until it is drawn.
        draws = torch.where(top.competes, -rivals, NO_CANDIDATE).logcumsumexp(dim=1)
        length = top.competes.sum(dim=1)
        weight = kd_weight / length.clamp(min=1) * top.any
        losses = torch.where(top.competes, rivals - top.logits, 0).sum(dim=1)
        of_top = (top.logits + draws).exp() - 1
        of_rest = (log_rest + draws[:, -1]).exp()
        student = (top.logits - normalizers[:, None]).exp()
        logits.mul_(((log_rest - normalizers).exp() + weight * of_rest)[:, None])
        gradient = torch.where(top.competes, student + weight[:, None] * of_top, 0)
        logits.scatter_add_(1, top.columns, gradient)
        logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
        return normalizers - target_logits + weight * losses

    return catalogue_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=candidates,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )
