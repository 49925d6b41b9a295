# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""The losses that the states of a teacher allow, as the settings weight them."""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.distillation.candidates import candidates_of
from recsys_core.distillation.losses.divergences import (
    Divergence,
    forward_kl,
    jensen_shannon,
    reverse_kl,
)
from recsys_core.distillation.losses.hard_and_soft import SoftTerm
from recsys_core.distillation.losses.hidden_states import fitted_projection, hidden_state_matching
from recsys_core.distillation.losses.ranking import ranking_distillation
from recsys_core.distillation.losses.rejuvenated_cross_entropy import rce_closure
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.training.gradients import Loss
from recsys_core.training.negative_sampling import RestrictedBatch

DivergenceName = Literal["forward_kl", "reverse_kl", "jensen_shannon"]

_DIVERGENCES: Mapping[DivergenceName, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
_N_UNINTERESTING = 40  # as in the source of ranking distillation
_N_SAMPLED = 100  # as many as the top items of the closure


class SoftWeights(NamedTuple):
    """How much each loss against the teacher counts beside the hard cross-entropy; 0: not at all.

    Attributes:
        divergence: Of the divergence of the two distributions.
        ranking: Of ranking distillation.
        closure: Of the cross-entropy over the student's own top items.
        hidden: Of hidden-state matching.
    """

    divergence: float
    ranking: float = 0.0
    closure: float = 0.0
    hidden: float = 0.0


def factorized_distillation(
    item_vectors: NDArray[np.float32],
    weights: SoftWeights,
    *,
    divergence: DivergenceName,
    temperature: float,
    on_device: str | None,
    distrusted: NDArray[np.bool_] | None = None,
) -> Loss:
    """The loss for labels that are the teacher's states, perhaps with its top items.

    Where negatives are drawn, the top items are positives of their position.

    Args:
        item_vectors: The teacher's, `[n_items + 1, dim]` by item_idx.
        weights: How much each loss counts.
        divergence: Of the two distributions.
        temperature: Divides the logits on both sides of the divergence.
        on_device: Where the teacher's item vectors are kept; None: in the memory of the computer,
            and only those of a step's candidates are moved to the device of the loss.
        distrusted: `[n_items + 1]`, the items that count on neither side of losses on logits; None:
            none.
    """
    teacher_item_vectors = torch.from_numpy(item_vectors).to(on_device or "cpu")
    is_distrusted = None if distrusted is None else torch.from_numpy(distrusted)

    def loss(
        states: Float[Tensor, "positions dim"],
        item_vectors: Float[Tensor, "rows dim"],
        restricted: RestrictedBatch,
    ) -> Float[Tensor, ""]:
        batch, items, device = restricted.batch, restricted.items, states.device
        assert batch.teacher_states is not None  # the training set has labels
        teacher_states = batch.teacher_states.to(device)
        of_position = None if batch.weights is None else batch.weights.to(device)
        rows, left_out = teacher_item_vectors, is_distrusted
        if items is not None:
            rows = rows[items.to(rows.device)].to(device)
            left_out = None if left_out is None else left_out[items]
        lists = batch.sparse_labels
        listed = None if lists is None else lists.top_ids.to(device)
        candidates = candidates_of(restricted, len(item_vectors), device, listed)
        value = distillation_loss(
            states,
            item_vectors,
            candidates.targets,
            teacher_states=teacher_states,
            teacher_item_vectors=rows,
            kd_weight=weights.divergence,
            temperature=temperature,
            divergence=_DIVERGENCES[divergence],
            others=list(_ranking_terms(weights, len(states), len(rows), device)),
            weights=of_position,
            seen=candidates.seen,
            distrusted=None if left_out is None else left_out.to(device),
            candidates=candidates.sampled,
        )
        if weights.hidden:
            projection = fitted_projection(states, teacher_states, weights=of_position)
            value = value + weights.hidden * hidden_state_matching(
                states, projection, teacher_states, weights=of_position
            )
        return value

    return loss


def _ranking_terms(
    weights: SoftWeights, n_positions: int, n_rows: int, device: torch.device
) -> Iterator[SoftTerm]:
    """The losses on top items, each with newly drawn items."""

    def drawn(n: int) -> Tensor:
        return torch.randint(1, n_rows, (n_positions, n), device=device)

    if weights.ranking:
        yield SoftTerm(ranking_distillation(drawn(_N_UNINTERESTING)), weights.ranking)
    if weights.closure:
        yield SoftTerm(rce_closure(drawn(_N_SAMPLED)), weights.closure)
