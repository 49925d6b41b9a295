"""The loss for ranked lists without scores, such as those of a language model."""

import torch

from recsys_core.distillation.losses.listed import Listed, ListGradient, ListTerm
from recsys_core.training.losses.seen import NO_CANDIDATE


def ranked_list() -> ListTerm:
    """Negative log-likelihood of the list, divided by its length, in nats; the best item is first.

    The likelihood is Plackett and Luce's: the first item is drawn from all items by the student's
    softmax, the second one from all others, and so on. An item therefore competes with the items
    below it in the list and with all that are not listed, whose order is left open. RRD draws some
    of those; here all of them count. An item of the list that does not compete is left out.

    Example:
        A list of one item is a second hard target: ln 2 + ln 2 for two even items.

        >>> import torch
        >>> from recsys_core.distillation.losses.listed import listed_loss
        >>> loss = listed_loss(
        ...     torch.zeros(1, 4),
        ...     torch.ones(3, 4),
        ...     torch.tensor([1]),
        ...     ranked_list(),
        ...     ids=torch.tensor([[2, 0]]),
        ...     kd_weight=1.0,
        ... )
        >>> round(loss.item(), 4)
        1.3863

    Source: Kang et al. 2020, DE-RRD, arXiv:2012.04357, section 4.2; Plackett 1975.
    """

    def term(top: Listed, rows: slice) -> ListGradient:
        del rows
        # What each listed item competes with: itself, those below it, and those not listed.
        below = top.logits.flip(1).logcumsumexp(dim=1).flip(1)
        rivals = torch.logaddexp(below, top.log_rest[:, None])
        # Σ over the draws that an item takes part in of its probability there, in logarithms
        # because each logit may be large; a listed item takes part until it is drawn.
        draws = torch.where(top.competes, -rivals, NO_CANDIDATE).logcumsumexp(dim=1)
        length = top.competes.sum(dim=1).clamp(min=1)
        losses = torch.where(top.competes, rivals - top.logits, 0).sum(dim=1)
        by_listed = (top.logits + draws).exp() - 1
        by_rest = (top.log_rest + draws[:, -1]).exp()
        return ListGradient(losses / length, by_listed / length[:, None], by_rest / length)

    return term
