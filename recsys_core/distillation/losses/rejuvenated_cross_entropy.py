"""Rejuvenated cross-entropy: the teacher's distribution over the student's own top items."""
# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.distillation.losses.hard_and_soft import hard_and_soft_loss
from recsys_core.distillation.losses.top_and_drawn import check_drawn, top_items
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen


def rce_closure(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    teacher_states: Float[Tensor, "positions teacher_dim"],
    teacher_item_vectors: Float[Tensor, "teacher_items_and_padding teacher_dim"],
    sampled: Int[Tensor, "positions sampled"],
    kd_weight: float,
    n_top: int = 100,
    overlap_decay: float = 3.0,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × a loss in the style of RCE-KD.

    A cross-entropy on a part of the catalogue bounds the NDCG there only if the part holds the
    items that the student ranks highest (closure). So the loss has two parts. At each position,
    among the teacher's items that compete:

    - S is the student's top `n_top` items, T is the teacher's;
    - U is T without S, and the sampled items;
    - CE(X) = −Σ_{i∈X} p_i log q_i, with the softmax of the teacher's logits over X alone as p and
      that of the student's as q; it is 0 if X has no item;
    - γ = exp(−overlap_decay × overlap), where overlap is the share of T that is in S;
    - the loss is (1 − γ) · CE(S) + γ · CE(U).

    S, T and γ are constants for the gradient. The source draws the sampled items with the help of
    both rankings; here the caller draws them.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        teacher_states: The teacher's states at the same positions. A row of NaN marks a position
            without a label; only its hard target counts.
        teacher_item_vectors: The teacher's vectors of the same rows, perhaps of fewer.
        sampled: Rows of items drawn for each position, from 1. One that is seen or that the teacher
            does not know is left out. One that was drawn twice counts once.
        kd_weight: Weight of the loss; 0 leaves the hard cross-entropy.
        n_top: K, the size of S and of T; all that compete, if there are fewer.
        overlap_decay: β, 0 or more; 0 leaves CE(U).
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position, neither for the teacher nor for the
            student; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, `n_top` is below 1, or `overlap_decay` is
            negative or not finite.

    Example:
        Both rank alike, so S = T and U has only the sampled item, whose cross-entropy is 0. The
        teacher gives the two top items 1/2 each, and so does the student: (1 − γ) ln 2.

        >>> import torch
        >>> vectors = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
        >>> loss = rce_closure(
        ...     torch.ones(1, 1),
        ...     vectors,
        ...     torch.tensor([1]),
        ...     teacher_states=torch.ones(1, 1),
        ...     teacher_item_vectors=vectors,
        ...     sampled=torch.tensor([[3]]),
        ...     kd_weight=1.0,
        ...     n_top=2,
        ... )
        >>> round(loss.item(), 4)  # cross-entropy .8620 + (1 − exp −3) ln 2
        1.5206

    Source: Zhu and Zhang 2026 (RCE-KD), arXiv:2509.20989.
    """
    check_drawn(sampled, states, n_top)
    if not 0 <= overlap_decay < float("inf"):
        msg = f"overlap_decay must be 0 or more and finite, found {overlap_decay}."
        raise ValueError(msg)
    n_items, n_known = len(item_vectors) - 1, len(teacher_item_vectors) - 1

    def soft_loss(student: Tensor, teacher: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        own, _ = top_items(student, n_top)
        taught, competing = top_items(teacher, n_top)
        is_own = student.new_zeros((len(student), n_items), dtype=torch.bool)
        is_own.scatter_(1, own, value=True)
        new = competing & ~is_own.gather(1, taught)
        overlap = 1 - new.sum(dim=1) / competing.sum(dim=1).clamp(min=1)
        gamma = torch.exp(-overlap_decay * overlap)

        drawn = sampled[rows] - 1
        is_other = torch.zeros_like(is_own).scatter_(1, taught, new).scatter_(1, drawn, value=True)
        others, _ = torch.cat([taught, drawn], dim=1).sort(dim=1)
        kept = is_other.gather(1, others) & (others < n_known)
        # Equal columns are neighbours; an item counts once.
        kept[:, 1:] &= others[:, 1:] != others[:, :-1]
        others = others.clamp_(max=n_known - 1)

        every = torch.ones_like(own, dtype=torch.bool)
        on_own, by_own = _cross_entropy_on(own, every, student, teacher)
        on_others, by_others = _cross_entropy_on(others, kept, student, teacher)
        gradient = torch.zeros_like(student).scatter_(1, own, by_own * (1 - gamma[:, None]))
        gradient.scatter_add_(1, others, by_others * gamma[:, None])
        return torch.lerp(on_own, on_others, gamma), gradient

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


def _cross_entropy_on(
    columns: Int[Tensor, "chunk part"],
    kept: Bool[Tensor, "chunk part"],
    student: Float[Tensor, "chunk items"],
    teacher: Float[Tensor, "chunk items"],
) -> tuple[Float[Tensor, " chunk"], Float[Tensor, "chunk part"]]:
    """Cross-entropy of both softmaxes over some columns, and its gradient by the student's logits.

    Both are 0 where no column is kept that competes.
    """
    taught = teacher.gather(1, columns)
    left_out = ~kept | (taught == NO_CANDIDATE)
    log_q = F.log_softmax(student.gather(1, columns).masked_fill_(left_out, NO_CANDIDATE), dim=1)
    p = F.softmax(taught.masked_fill_(left_out, NO_CANDIDATE), dim=1)
    losses = -(p * log_q).sum(dim=1) * ~left_out.all(dim=1)
    return losses, log_q.exp_().sub_(p)
