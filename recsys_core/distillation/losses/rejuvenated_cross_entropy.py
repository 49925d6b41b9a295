"""Rejuvenated cross-entropy: the teacher's distribution over the student's own top items."""
# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.distillation.losses.hard_and_soft import SoftLoss
from recsys_core.distillation.losses.top_and_drawn import check_n_top, drawn_at, top_items
from recsys_core.training.losses.seen import NO_CANDIDATE


def rce_closure(
    sampled: Int[Tensor, "positions sampled"], *, n_top: int = 100, overlap_decay: float = 3.0
) -> SoftLoss:
    """A loss in the style of RCE-KD, in nats.

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
        sampled: Rows of items drawn for each position, from 1. One that does not compete is
            left out. One that was drawn twice counts once.
        n_top: K, the size of S and of T; all that compete, if there are fewer.
        overlap_decay: β, 0 or more; 0 leaves CE(U).

    Raises:
        ValueError: `n_top` is below 1, or `overlap_decay` is negative or not finite; when it is
            called, there is not one row of drawn items per position.

    Example:
        Both rank alike, so S = T and U has only the sampled item, whose cross-entropy is 0. The
        teacher gives the two top items 1/2 each, and so does the student: (1 − γ) ln 2.

        >>> import torch
        >>> scores = torch.tensor([[1.0, 1.0, 0.0]])
        >>> loss = rce_closure(torch.tensor([[3]]), n_top=2)
        >>> values, gradient = loss(scores, scores, slice(0, 1))
        >>> round(values.item(), 4)  # (1 − exp −3) ln 2
        0.6586

    Source: Zhu and Zhang 2026 (RCE-KD), arXiv:2509.20989.
    """
    check_n_top(n_top)
    if not 0 <= overlap_decay < float("inf"):
        msg = f"overlap_decay must be 0 or more and finite, found {overlap_decay}."
        raise ValueError(msg)

    def soft_loss(student: Tensor, teacher: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        drawn = drawn_at(sampled, rows, len(student)) - 1
        own, _ = top_items(student, n_top)
        taught, competing = top_items(teacher, n_top)
        is_own = torch.zeros_like(student, dtype=torch.bool).scatter_(1, own, value=True)
        new = competing & ~is_own.gather(1, taught)
        overlap = 1 - new.sum(dim=1) / competing.sum(dim=1).clamp(min=1)
        gamma = torch.exp(-overlap_decay * overlap)

        is_other = torch.zeros_like(is_own).scatter_(1, taught, new).scatter_(1, drawn, value=True)
        others, _ = torch.cat([taught, drawn], dim=1).sort(dim=1)
        kept = is_other.gather(1, others)
        # Equal columns are neighbours; an item counts once.
        kept[:, 1:] &= others[:, 1:] != others[:, :-1]

        every = torch.ones_like(own, dtype=torch.bool)
        on_own, by_own = _cross_entropy_on(own, every, student, teacher)
        on_others, by_others = _cross_entropy_on(others, kept, student, teacher)
        gradient = torch.zeros_like(student).scatter_(1, own, by_own * (1 - gamma[:, None]))
        gradient.scatter_add_(1, others, by_others * gamma[:, None])
        return torch.lerp(on_own, on_others, gamma), gradient

    return soft_loss


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
