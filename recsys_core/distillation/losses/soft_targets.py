"""The distillation loss: hard cross-entropy plus a divergence from the teacher's distribution."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.distillation.losses.divergences import Divergence, forward_kl
from recsys_core.distillation.losses.hard_and_soft import SoftTerm, hard_and_soft_loss
from recsys_core.training.losses.sampled_candidates import SampledCandidates
from recsys_core.training.losses.seen import Seen


def distillation_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    teacher_states: Float[Tensor, "positions teacher_dim"],
    teacher_item_vectors: Float[Tensor, "items_and_padding teacher_dim"],
    kd_weight: float,
    temperature: float,
    divergence: Divergence = forward_kl,
    others: Sequence[SoftTerm] = (),
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    distrusted: Bool[Tensor, " items_and_padding"] | None = None,
    candidates: SampledCandidates | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × temperature² × divergence.

    Without `candidates` both distributions are exact: the teacher's logits are computed chunk by
    chunk from stored states. With them both are self-normalised importance estimates from the same
    items. Whatever was drawn, a student that equals its teacher has no divergence. The gradient of
    a positive is close to the exact one; an item that is rarely drawn gets at most the probability
    of being drawn at all, so the teacher's top items should be positives.

    The factor temperature² keeps gradient sizes comparable across temperatures.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1; with `candidates`, its column, from 1.
        teacher_states: The teacher's states at the same positions. A row of NaN marks a position
            without a label; only its hard target counts.
        teacher_item_vectors: The teacher's vectors of the same rows.
        kd_weight: Weight of the divergence; 0 leaves the cross-entropy.
        temperature: Positive and finite; divides the logits on both sides.
        divergence: Of the two distributions: `forward_kl`, `reverse_kl` or `jensen_shannon`.
        others: More losses against the teacher's logits.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position, neither for the teacher nor for the
            student; None: all compete.
        distrusted: Rows that count on neither side of the divergence, and in the cross-entropy as
            ever; None: none.
        candidates: The columns, where the catalogue is too large; None: all rows.
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

    def soft_loss(
        student_logits: Tensor, teacher_logits: Tensor, _: slice
    ) -> tuple[Tensor, Tensor]:
        return divergence(
            F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
        )

    return hard_and_soft_loss(
        states,
        item_vectors,
        targets,
        [SoftTerm(soft_loss, kd_weight, temperature), *others],
        teacher_states=teacher_states,
        teacher_item_vectors=teacher_item_vectors,
        weights=weights,
        seen=seen,
        distrusted=distrusted,
        candidates=candidates,
        chunk_positions=chunk_positions,
    )
