"""The loss for draws from the teacher's distribution."""

import torch
from jaxtyping import Int
from torch import Tensor

from recsys_core.distillation.losses.listed import (
    Listed,
    ListGradient,
    ListTerm,
    softmax_of_all,
)


def sampled_kl(counts: Int[Tensor, "positions samples"]) -> ListTerm:
    """KL(draws ‖ student) over all items that compete, in nats; the ids are the items drawn.

    The teacher's distribution p is estimated by counts / N of N draws from it. The student q is
    normalised over all items, so the gradient q − counts / N has the expectation q − p: that of the
    KL to the whole distribution. Draws of items that don't compete are left out, and N is the
    number of the others: these are draws from p without those items. The value is larger than the
    KL to p by an amount that does not depend on the student.

    Args:
        counts: How often each item was drawn.

    Example:
        Even draws from a student that scores two items evenly: the cross-entropy ln 2 is left.

        >>> import torch
        >>> from recsys_core.distillation.losses.listed import listed_loss
        >>> loss = listed_loss(
        ...     torch.zeros(1, 4),
        ...     torch.ones(3, 4),
        ...     torch.tensor([1]),
        ...     sampled_kl(torch.tensor([[5, 5]])),
        ...     ids=torch.tensor([[1, 2]]),
        ...     kd_weight=1.0,
        ... )
        >>> round(loss.item(), 4)
        0.6931

    Source: Anshumann et al. 2025, "Sparse Logit Sampling", arXiv:2503.16870, section 4.
    """

    def term(drawn: Listed, rows: slice) -> ListGradient:
        shares = torch.where(drawn.competes, drawn.of(counts, rows), 0)
        teacher = shares / shares.sum(dim=1, keepdim=True).clamp(min=1)
        log_student, log_rest = softmax_of_all(drawn)
        divergence = torch.xlogy(teacher, teacher) - teacher * log_student
        return ListGradient(divergence.sum(dim=1), log_student.exp() - teacher, log_rest.exp())

    return term
