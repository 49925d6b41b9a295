"""The loss for scores of a list whose normaliser is known."""

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_core.distillation.losses.listed import (
    Listed,
    ListGradient,
    ListTerm,
    softmax_of_all,
)
from recsys_core.training.losses.seen import NO_CANDIDATE


def top_k_kl(
    scores: Float[Tensor, "positions k"], log_normalizer: Float[Tensor, " positions"]
) -> ListTerm:
    """KL(teacher ‖ student) over K + 1 outcomes: each item of the list, and any other; in nats.

    The teacher's probability of an item is exp(score − log_normalizer), of any other item 1 minus
    their sum; the student's are its probabilities under the softmax over all items that compete.
    This KL is exact for these outcomes. It is at most the KL over all items, and says nothing about
    the order of the items that are not listed. The temperature is 1, since the normaliser is known
    for no other.

    An item of the list that does not compete is left out, and the teacher's other probabilities are
    divided by the rest. The teacher's probability of items that are not listed counts as that of
    items that compete: log_normalizer should leave out the items that the user has had, where these
    are not recommended.

    Args:
        scores: The teacher's raw score of each listed item, in nats.
        log_normalizer: Log of the sum over all items of exp(score).

    Example:
        A student of four even items, whose teacher gives item 1 a quarter: no divergence.

        >>> import torch
        >>> from recsys_core.distillation.losses.listed import listed_loss
        >>> four = torch.tensor([4.0]).log()
        >>> loss = listed_loss(
        ...     torch.zeros(1, 4),
        ...     torch.ones(5, 4),
        ...     torch.tensor([1]),
        ...     top_k_kl(torch.tensor([[2.0]]), 2.0 + four),
        ...     ids=torch.tensor([[1]]),
        ...     kd_weight=1.0,
        ... )
        >>> round(loss.item(), 4) == round(four.item(), 4)
        True

    Source: Anshumann et al. 2025, arXiv:2503.16870, section 3, on why the remainder is needed.
    """

    def term(top: Listed, rows: slice) -> ListGradient:
        log_student, log_student_rest = softmax_of_all(top)
        shares = (top.of(scores, rows) - log_normalizer[rows, None].float()).exp()
        of_all = torch.where(top.ids != 0, shares, 0).sum(dim=1)
        has_rest = top.log_rest > NO_CANDIDATE / 2
        rest = (1 - of_all).clamp(min=0) * has_rest
        teacher = torch.where(top.competes, shares, 0)
        mass = teacher.sum(dim=1) + rest
        is_label = mass > 0
        mass = mass.clamp(min=torch.finfo(mass.dtype).tiny)
        teacher, rest = teacher / mass[:, None], rest / mass
        of_top = torch.xlogy(teacher, teacher) - teacher * log_student
        of_rest = torch.xlogy(rest, rest) - rest * torch.where(has_rest, log_student_rest, 0)
        return ListGradient(
            of_top.sum(dim=1) + of_rest,
            (log_student.exp() - teacher) * is_label[:, None],
            (log_student_rest.exp() - rest) * is_label,
        )

    return term
