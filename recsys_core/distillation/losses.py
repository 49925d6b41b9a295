"""The distillation loss: hard cross-entropy plus KL to the teacher's stored logits."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets, chunked_loss
from recsys_core.training.losses.full_softmax import cross_entropy_to_gradient
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen


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
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × temperature² × KL(teacher ‖ student), full catalogue.

    The teacher's distribution is exact: its logits are computed chunk by chunk from stored states.
    If the student knows more items than the teacher, the KL is over the teacher's items on both
    sides. The factor temperature² keeps gradient sizes comparable across temperatures.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        teacher_states: The teacher's states at the same positions. A row of NaN marks a position
            without a label; only its hard target counts.
        teacher_item_vectors: The teacher's vectors of the same rows, perhaps of fewer.
        kd_weight: Weight of the KL; 0 leaves the cross-entropy.
        temperature: Positive and finite; divides the logits on both sides.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position, neither for the teacher nor for the
            student; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or the temperature is impossible.

    Example:
        A student that equals its teacher has no divergence: the cross-entropy is left.

        >>> import torch
        >>> states, item_vectors = torch.zeros(1, 4), torch.ones(3, 4)
        >>> loss = distillation_loss(
        ...     states,
        ...     item_vectors,
        ...     torch.tensor([1]),
        ...     teacher_states=states,
        ...     teacher_item_vectors=item_vectors,
        ...     kd_weight=1.0,
        ...     temperature=2.0,
        ... )
        >>> round(loss.item(), 4)
        0.6931

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
        msg = f"Distillation needs a teacher that knows two or more items, found {n_known}."
        raise ValueError(msg)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        teacher_logits = teacher_states[rows] @ teacher_item_vectors[1:].T
        if seen is not None:
            teacher_logits.masked_fill_(logits[:, :n_known] == NO_CANDIDATE, NO_CANDIDATE)
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
        seen=seen,
        chunk_positions=chunk_positions,
    )


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        msg = f"temperature must be positive and finite, found {temperature}."
        raise ValueError(msg)
