"""Ranking distillation: the student puts the teacher's top items in the teacher's order."""
# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.distillation.losses.hard_and_soft import SoftLoss
from recsys_core.distillation.losses.top_and_drawn import check_n_top, drawn_at, top_items
from recsys_core.training.losses.seen import NO_CANDIDATE


def ranking_distillation(
    uninteresting: Int[Tensor, "positions uninteresting"], *, n_top: int = 40
) -> SoftLoss:
    """Relaxed ranking distillation (RRD), in nats.

    RRD is −log of the Plackett-Luce probability, by the student's scores s, of the teacher's top
    items in the teacher's order, each ahead of all uninteresting items u:
    −Σ_k [s_k − log(Σ_{j≥k} exp s_j + Σ_u exp s_u)], k from the teacher's first item to its last.
    The order of the uninteresting items does not count. It needs the teacher's ranking only, not
    its scores. The source draws the top items from the teacher's ranking; here they are its first.
    RRD is a sum over the top items, so small weights fit, as 1e-3.

    Args:
        uninteresting: Rows of items drawn for each position, from 1; the source draws 40. One that
            is among the top items, that is seen or that the teacher does not know is left out. One
            that was drawn twice counts twice.
        n_top: Number of the teacher's top items; all that compete, if there are fewer.

    Raises:
        ValueError: `n_top` is below 1; when it is called, there is not one row of drawn items per
            position.

    Example:
        The student scores three items equally: two top items and an uninteresting one. The first
        item of the ranking has probability 1/3 and the second 1/2.

        >>> import torch
        >>> loss = ranking_distillation(torch.tensor([[3]]), n_top=2)
        >>> values, gradient = loss(torch.ones(1, 3), torch.tensor([[5.0, 4.0, 0.0]]), slice(0, 1))
        >>> round(values.item(), 4)  # ln 3 + ln 2
        1.7918

    Source: Kang et al. 2020 (DE-RRD), arXiv:2012.04357.
    """
    check_n_top(n_top)

    def soft_loss(student: Tensor, teacher: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        drawn = drawn_at(uninteresting, rows, len(student)) - 1
        top, competing = top_items(teacher, n_top)
        is_top = torch.zeros_like(student, dtype=torch.bool).scatter_(1, top, value=True)
        losses, by_top, by_drawn = _plackett_luce(
            student.gather(1, top),
            competing,
            student.gather(1, drawn).masked_fill_(is_top.gather(1, drawn), NO_CANDIDATE),
        )
        gradient = torch.zeros_like(student).scatter_(1, top, by_top)
        return losses, gradient.scatter_add_(1, drawn, by_drawn)

    return soft_loss


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
