"""The loss for scores of a list whose normaliser is unknown."""

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_core.distillation.losses.hard_and_soft import check_temperature
from recsys_core.distillation.losses.listed import Listed, ListGradient, ListTerm
from recsys_core.training.losses.seen import NO_CANDIDATE


def within_list_kl(scores: Float[Tensor, "positions k"], *, temperature: float) -> ListTerm:
    """temperature² × KL(teacher ‖ student) within the list, in nats.

    How much probability the listed items have together is unknown. So both sides are normalised
    over the listed items that compete, and the KL says how these divide what they have together.
    The other items are left to the hard cross-entropy.

    Args:
        scores: The teacher's raw score of each listed item, in nats.
        temperature: Positive and finite; divides the logits on both sides.

    Raises:
        ValueError: The temperature is impossible.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2, for the conditional distribution.
    """
    check_temperature(temperature)

    def term(top: Listed, rows: slice) -> ListGradient:
        given = torch.where(top.competes, top.of(scores, rows), NO_CANDIDATE)
        teacher = (given / temperature).log_softmax(dim=1)
        student = (top.logits / temperature).log_softmax(dim=1)
        differences = torch.where(top.competes, teacher.exp() * (teacher - student), 0)
        return ListGradient(
            differences.sum(dim=1) * temperature**2,
            (student.exp() - teacher.exp()) * temperature,
            torch.zeros_like(top.log_rest),
        )

    return term
