"""Divergences between the teacher's and the student's distribution, with their gradients."""
# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_core.training.losses.full_softmax import log_normalizers

Divergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Given the logits of student and teacher, `[chunk, items]`, return the divergence of each
position's distributions, in nats, and its gradient by the student's logits."""


def forward_kl(
    student: Float[Tensor, "chunk items"], teacher: Float[Tensor, "chunk items"]
) -> tuple[Float[Tensor, " chunk"], Float[Tensor, "chunk items"]]:
    """KL(teacher ‖ student): expensive where the student gives a likely item too little.

    Args:
        student: Logits.
        teacher: Logits.

    Returns:
        The divergence of each position, in nats, and its gradient by the student's logits.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    of_student, of_teacher = student.softmax(dim=1), teacher.softmax(dim=1)
    divergence = (teacher - student).mul_(of_teacher).sum(dim=1)
    divergence += log_normalizers(student.amax(dim=1), of_student)
    divergence -= log_normalizers(teacher.amax(dim=1), of_teacher)
    return divergence, of_student.sub_(of_teacher)


def reverse_kl(
    student: Float[Tensor, "chunk items"], teacher: Float[Tensor, "chunk items"]
) -> tuple[Float[Tensor, " chunk"], Float[Tensor, "chunk items"]]:
    """KL(student ‖ teacher): expensive where the student recommends what the teacher would not.

    Args:
        student: Logits.
        teacher: Logits.

    Returns:
        The divergence of each position, in nats, and its gradient by the student's logits.

    Source: Gu et al. 2024 (MiniLLM), arXiv:2306.08543, section 2.
    """
    return _kl_of_student(student.log_softmax(dim=1), teacher.log_softmax(dim=1))


def jensen_shannon(
    student: Float[Tensor, "chunk items"], teacher: Float[Tensor, "chunk items"]
) -> tuple[Float[Tensor, " chunk"], Float[Tensor, "chunk items"]]:
    """The mean of both sides' KL to their equal mixture: symmetric, at most ln 2.

    Args:
        student: Logits.
        teacher: Logits.

    Returns:
        The divergence of each position, in nats, and its gradient by the student's logits.

    Source: Lin 1991, IEEE Transactions on Information Theory 37(1); in distillation Agarwal et al.
    2024 (GKD), arXiv:2306.13649, section 2, with β = 1/2.
    """
    student, teacher = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    mixture = torch.logaddexp(student, teacher).sub_(math.log(2))
    of_student, gradient = _kl_of_student(student, mixture)
    of_teacher = (teacher - mixture).mul_(teacher.exp()).sum(dim=1)
    # The gradient that goes through the mixture cancels between the two halves.
    return (of_student + of_teacher) / 2, gradient.div_(2)


def _kl_of_student(student: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """KL(student ‖ other) of log-probabilities, and its gradient by the student's logits.

    The gradient holds `other` constant.
    """
    probabilities, ratio = student.exp(), student - other
    divergence = (probabilities * ratio).sum(dim=1)
    return divergence, ratio.sub_(divergence[:, None]).mul_(probabilities)
