"""Ranking distillation: the student puts the teacher's top items in the teacher's order."""
# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.distillation.losses.hard_and_soft import hard_and_soft_loss
from recsys_core.distillation.losses.top_and_drawn import check_drawn, top_items
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen


def ranking_distillation(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    teacher_states: Float[Tensor, "positions teacher_dim"],
    teacher_item_vectors: Float[Tensor, "teacher_items_and_padding teacher_dim"],
    uninteresting: Int[Tensor, "positions uninteresting"],
    kd_weight: float,
    n_top: int = 40,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × relaxed ranking distillation (RRD).

    RRD is −log of the Plackett-Luce probability, by the student's scores s, of the teacher's top
    items in the teacher's order, each ahead of all uninteresting items u:
    −Σ_k [s_k − log(Σ_{j≥k} exp s_j + Σ_u exp s_u)], k from the teacher's first item to its last.
    The order of the uninteresting items does not count. It needs the teacher's ranking only, not
    its scores. The source draws the top items from the teacher's ranking; here they are its first.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        teacher_states: The teacher's states at the same positions. A row of NaN marks a position
            without a label; only its hard target counts.
        teacher_item_vectors: The teacher's vectors of the same rows, perhaps of fewer.
        uninteresting: Rows of items drawn for each position, from 1; the source draws 40. One that
            is among the top items, that is seen or that the teacher does not know is left out. One
            that was drawn twice counts twice.
        kd_weight: Weight of RRD. RRD is a sum over the top items, so small weights fit, as 1e-3.
        n_top: Number of the teacher's top items; all that compete, if there are fewer.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position, neither for the teacher nor for the
            student; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or `n_top` is below 1.

    Example:
        The student scores three items equally: two top items and an uninteresting one. The target
        has probability 1/3, the first item of the ranking 1/3 and the second 1/2.

        >>> import torch
        >>> loss = ranking_distillation(
        ...     torch.zeros(1, 1),
        ...     torch.ones(4, 1),
        ...     torch.tensor([1]),
        ...     teacher_states=torch.ones(1, 1),
        ...     teacher_item_vectors=torch.tensor([[0.0], [5.0], [4.0], [0.0]]),
        ...     uninteresting=torch.tensor([[3]]),
        ...     kd_weight=1.0,
        ...     n_top=2,
        ... )
        >>> round(loss.item(), 4)  # 2 ln 3 + ln 2
        2.8904

    Source: Kang et al. 2020 (DE-RRD), arXiv:2012.04357.
    """
    check_drawn(uninteresting, states, n_top)
    n_known = len(teacher_item_vectors) - 1

    def soft_loss(student: Tensor, teacher: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        top, competing = top_items(teacher, n_top)
        is_top = torch.zeros_like(student, dtype=torch.bool).scatter_(1, top, value=True)
        drawn = uninteresting[rows] - 1
        columns = drawn.clamp(max=n_known - 1)
        left_out = is_top.gather(1, columns) | (drawn >= n_known)
        losses, by_top, by_drawn = _plackett_luce(
            student.gather(1, top),
            competing,
            student.gather(1, columns).masked_fill_(left_out, NO_CANDIDATE),
        )
        gradient = torch.zeros_like(student).scatter_(1, top, by_top)
        return losses, gradient.scatter_add_(1, columns, by_drawn)

    return hard_and_soft_loss(
        states,
        item_vectors,
        targets,
        soft_loss,
        teacher_states=teacher_states,
        teacher_item_vectors=teacher_item_vectors,
        kd_weight=kd_weight,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )


def _plackett_luce(
    ranked: Float[Tensor, "chunk top"],
    competing: Bool[Tensor, "chunk top"],
    others: Float[Tensor, "chunk others"],
) -> tuple[Float[Tensor, " chunk"], Float[Tensor, "chunk top"], Float[Tensor, "chunk others"]]:
    """−log probability of a ranking ahead of all others, and its gradient by both scores.

    Args:
        ranked: Scores of the ranked items, best first; those that don't compete are last.
        competing: Which of them compete.
        others: Scores of the others; `NO_CANDIDATE` leaves one out.
    """
    n_ranked = ranked.shape[1]
    scores = torch.cat([ranked, others], dim=1)
    scores -= scores.amax(dim=1, keepdim=True)
    normalizers = scores.flip(1).logcumsumexp(dim=1).flip(1)[:, :n_ranked]
    ranked, others = scores[:, :n_ranked], scores[:, n_ranked:]
    losses = (normalizers - ranked).masked_fill_(~competing, 0.0).sum(dim=1)
    # An item takes part in the choices up to its own: log Σ_{k≤i} 1 / normalizer of choice k.
    choices = (-normalizers).masked_fill_(~competing, NO_CANDIDATE).logcumsumexp(dim=1)
    by_ranked = (ranked + choices).exp_().sub_(competing.to(scores.dtype))
    return losses, by_ranked, (others + choices[:, -1:]).exp_()
