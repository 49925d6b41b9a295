"""Hard cross-entropy plus a weighted loss on the logits of student and teacher."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets, chunked_loss
from recsys_core.training.losses.full_softmax import cross_entropy_to_gradient
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen

SoftLoss = Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]
"""Given the student's and the teacher's logits over the teacher's items, `[chunk, items]`, and
which positions they are, return the loss of each position and, as a new tensor, its gradient by the
student's logits. Items that don't compete have the logit `NO_CANDIDATE` on both sides."""


def hard_and_soft_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    soft_loss: SoftLoss,
    *,
    teacher_states: Float[Tensor, "positions teacher_dim"],
    teacher_item_vectors: Float[Tensor, "teacher_items_and_padding teacher_dim"],
    kd_weight: float,
    temperature: float = 1.0,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × temperature² × a loss against the teacher's logits.

    The teacher's logits are exact: they are computed chunk by chunk from stored states.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        soft_loss: The loss on both sides' logits, divided by the temperature; see `SoftLoss`.
        teacher_states: The teacher's states at the same positions. A row of NaN marks a position
            without a label; only its hard target counts.
        teacher_item_vectors: The teacher's vectors of the same rows, perhaps of fewer.
        kd_weight: Weight of the soft loss; 0 leaves the cross-entropy.
        temperature: Positive and finite; divides the logits on both sides.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position, neither for the teacher nor for the
            student; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions.

    Raises:
        ValueError: The shapes do not fit each other, or the temperature is impossible.
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
        teacher_logits.div_(temperature)
        student_logits = logits[:, :n_known] / temperature
        if seen is not None:
            erased = logits[:, :n_known] == NO_CANDIDATE
            teacher_logits.masked_fill_(erased, NO_CANDIDATE)
            student_logits.masked_fill_(erased, NO_CANDIDATE)
        soft, gradient = soft_loss(student_logits, teacher_logits, rows)
        weight = labelled[rows, None] * (kd_weight * temperature)
        losses = soft * weight[:, 0] * temperature
        losses += cross_entropy_to_gradient(logits, targets[rows] - 1)
        logits[:, :n_known] += gradient.mul_(weight)
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
