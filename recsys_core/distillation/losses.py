"""Distillation losses: what the student learns from the teacher's stored logits."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses import (
    check_targets,
    chunked_loss,
    cross_entropy_to_gradient,
)


def distillation_kl(
    student_logits: Float[Tensor, "batch candidates"],
    teacher_logits: Float[Tensor, "batch candidates"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """KL(teacher ‖ student) over the candidates, scaled by temperature².

    The T² factor keeps gradient sizes comparable across temperatures. This is the readable
    definition; training uses `distillation_loss`, which never holds all logits at once.

    Args:
        student_logits: Raw scores.
        teacher_logits: Raw scores; -inf excludes a candidate.
        temperature: Positive and finite; used on both sides.

    Returns:
        Mean over the batch, in nats.

    Raises:
        ValueError: Fewer than two candidates, unequal shapes, a temperature that is not positive
            and finite, or NaN in teacher_logits.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    _check_temperature(temperature)
    if student_logits.shape != teacher_logits.shape or student_logits.shape[1] < 2:
        msg = (
            "Student and teacher must score the same two or more candidates, found shapes "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}."
        )
        raise ValueError(msg)
    if teacher_logits.isnan().any():
        msg = "teacher_logits hold NaN: the soft labels are damaged, write them again."
        raise ValueError(msg)
    excluded = teacher_logits.isneginf()
    student = F.log_softmax(student_logits.masked_fill(excluded, -torch.inf) / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    terms = torch.where(excluded, 0.0, teacher.exp() * (teacher - student))
    return terms.sum(dim=1).mean() * temperature**2


def distillation_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    teacher_states: Float[Tensor, "positions teacher_dim"],
    teacher_item_vectors: Float[Tensor, "teacher_items_and_padding teacher_dim"],
    kd_weight: float,
    temperature: float,
    weights: Float[Tensor, " positions"] | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × temperature² × KL(teacher ‖ student), full catalogue.

    The teacher's distribution is exact: its logits are made chunk by chunk from stored states. It
    is a distribution over the items that the teacher knows; where the student's catalogue is
    longer, the KL is over the teacher's items on both sides.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors by item_idx.
        targets: item_idx of the next item, from 1.
        teacher_states: The teacher's states at the same positions; a row of NaN marks a position
            without a label, which then counts with its hard target only.
        teacher_item_vectors: The teacher's item vectors by item_idx.
        kd_weight: Weight of the KL; 0 leaves the cross-entropy.
        temperature: Positive and finite; used on both sides.
        weights: How much each position counts; None: all alike.
        chunk_positions: How many positions' logits are held at once; None: as suits the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: Shapes that do not belong together, or an impossible temperature.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    _check_temperature(temperature)
    check_targets(targets, states)
    if len(teacher_states) != len(states) or len(teacher_item_vectors) > len(item_vectors):
        msg = (
            f"Teacher labels for {len(teacher_states)} positions over {len(teacher_item_vectors)} "
            f"items do not fit {len(states)} positions over {len(item_vectors)} items."
        )
        raise ValueError(msg)
    labelled = ~teacher_states.isnan().any(dim=1)
    teacher_states = teacher_states.nan_to_num(0.0)
    n_known = len(teacher_item_vectors) - 1
    if n_known < 2:
        msg = f"A teacher must know two or more items to be learnt from, found {n_known}."
        raise ValueError(msg)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        teacher_logits = teacher_states[rows] @ teacher_item_vectors[1:].T
        weight = labelled[rows, None] * (kd_weight * temperature)
        student = F.log_softmax(logits[:, :n_known] / temperature, dim=1)
        teacher = F.log_softmax(teacher_logits.div_(temperature), dim=1)
        probabilities = teacher.exp()
        divergence = (probabilities * teacher.sub_(student)).sum(dim=1)
        losses = divergence * weight[:, 0] * temperature
        losses += cross_entropy_to_gradient(logits, targets[rows] - 1)
        logits[:, :n_known] += student.exp_().sub_(probabilities).mul_(weight)
        return losses

    return chunked_loss(
        states,
        item_vectors[1:],
        loss_and_gradient,
        weights=weights,
        chunk_positions=chunk_positions,
    )


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        msg = f"temperature must be positive and finite, found {temperature}."
        raise ValueError(msg)
