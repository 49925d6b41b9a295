"""Hidden-state matching: the student's states, projected, resemble the teacher's."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch leaves parts of its own signatures untyped)

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_core.training.losses.chunked import check_positions, total_weight


def hidden_state_matching(
    states: Float[Tensor, "positions dim"],
    projection: Float[Tensor, "dim teacher_dim"],
    teacher_states: Float[Tensor, "positions teacher_dim"],
    *,
    weights: Float[Tensor, " positions"] | None = None,
) -> Float[Tensor, ""]:
    """Squared distance of the projected student's and the teacher's state, both of length 1.

    It is 2 − 2 · cosine, from 0 to 4. The direction of a state decides its ranking of items, and
    its length only how sharp the softmax is; so states are scaled to length 1. A layer norm would
    also remove their mean over the coordinates, which the ranking depends on. The squares are
    summed over the coordinates, not averaged, so the loss doesn't shrink with the teacher's width.

    Args:
        states: The student's states, of any layer.
        projection: From `fitted_projection`, or learned with the student; not needed after
            training.
        teacher_states: The teacher's states at the same positions, of any layer; constants for the
            gradient. A row of NaN marks a position without a label; its loss is 0.
        weights: Weight of each position; None: all weights are equal.

    Returns:
        Weighted mean over all positions, with or without label; no unit.

    Raises:
        ValueError: There are no positions, or there is not one weight and one teacher's state per
            position.

    Example:
        The lengths of states don't count.

        >>> import torch
        >>> teacher_states = torch.tensor([[3.0, 4.0]])
        >>> hidden_state_matching(2 * teacher_states, torch.eye(2), teacher_states).item()
        0.0

    Source: the normalised distance: Sun et al. 2019 (Patient KD), arXiv:1908.09355; the projection:
    Jiao et al. 2020 (TinyBERT), arXiv:1909.10351.
    """
    check_positions(states, weights)
    if len(teacher_states) != len(states):
        msg = f"Teacher labels for {len(teacher_states)} positions do not fit {len(states)}."
        raise ValueError(msg)
    labelled = ~teacher_states.isnan().any(dim=1)
    teacher = F.normalize(teacher_states.detach().float().nan_to_num(0.0), dim=1)
    student = F.normalize(states.float() @ projection.float(), dim=1)
    losses = (student - teacher).square().sum(dim=1) * labelled
    if weights is not None:
        losses = losses * weights
    return losses.sum() / total_weight(states, weights)


@torch.no_grad()
def fitted_projection(
    states: Float[Tensor, "positions dim"],
    teacher_states: Float[Tensor, "positions teacher_dim"],
    *,
    weights: Float[Tensor, " positions"] | None = None,
    ridge: float = 1e-3,
) -> Float[Tensor, "dim teacher_dim"]:
    """The projection that brings the student's states closest to the teacher's, scaled to length 1.

    It is the minimum of a weighted ridge regression over the given positions: those of a batch, or
    of the part of it that is computed at once. A projection that is learned with the student
    approaches such a minimum over many batches. But it would be a parameter outside of the model:
    in the optimizer, in every checkpoint and in every process, and dropped at the end. This one has
    no state, so a resumed training needs nothing of it.

    Args:
        states: The student's states.
        teacher_states: The teacher's at the same positions; a row of NaN: without a label.
        weights: Weight of each position; None: all weights are equal.
        ridge: Strength of the penalty, relative to the mean square of a state's coordinates.

    Returns:
        A constant for the gradient.

    Source: closed-form ridge regression, Hoerl and Kennard 1970.
    """
    labelled = ~teacher_states.isnan().any(dim=1)
    share = labelled.double() if weights is None else labelled * weights.double()
    teacher = F.normalize(teacher_states.double().nan_to_num(0.0), dim=1)
    student = states.double()
    weighted = (student * share[:, None]).T
    gram = weighted @ student
    scale = gram.trace() / len(gram)
    tiny = torch.finfo(torch.float32).tiny  # without a label the projection is 0
    gram.diagonal().add_(ridge * scale + tiny)
    return torch.linalg.solve(gram, weighted @ teacher).to(states.dtype)
