"""The loss of a student, from what its settings name and what its labels hold."""

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.factorized_selection import (
    DivergenceName,
    SoftWeights,
    factorized_distillation,
)
from recsys_core.distillation.sparse_selection import sparse_distillation
from recsys_core.training.gradients import Loss
from recsys_core.training.negative_sampling import CandidateSet


def distilling_loss(
    labels: SoftLabels,
    candidates: CandidateSet,
    weights: SoftWeights,
    *,
    divergence: DivergenceName,
    temperature: float,
    device: str,
    distrusted: NDArray[np.bool_] | None = None,
) -> Loss:
    """Cross-entropy on the observed items plus the losses against the teacher.

    Args:
        labels: What the teacher says.
        candidates: Of the training.
        weights: How much each loss counts.
        divergence: Of the two distributions.
        temperature: Divides the logits on both sides of the divergence.
        device: Where the loss is computed.
        distrusted: `[n_items + 1]`, the items of which the teacher is not believed; None: none.
            Lists are always believed: they are of another teacher than the one that was compared.

    Raises:
        ValueError: The labels cannot feed a loss that the settings name, or the catalogue is too
            large for it.
    """
    description = labels.description
    if description.layout == "sparse":
        _check_sparse(labels, weights, divergence)
        return sparse_distillation(
            description.columns, kd_weight=weights.divergence, temperature=temperature
        )
    if candidates.sampled and (weights.ranking or weights.closure):
        name = "ranking_weight" if weights.ranking else "closure_weight"
        msg = (
            f"distillation.{name} is {weights.ranking or weights.closure:g}, and this training "
            f"compares each target with drawn candidates, because {candidates.n_items:,} items "
            "occur in it: the top items of a draw are not those of the catalogue. Set the weight "
            'to 0, or training.loss to "softmax".'
        )
        raise ValueError(msg)
    return factorized_distillation(
        labels.item_vectors(),
        weights,
        divergence=divergence,
        temperature=temperature,
        on_device=None if candidates.sampled else device,
        distrusted=distrusted,
    )


def _check_sparse(labels: SoftLabels, weights: SoftWeights, divergence: str) -> None:
    others = {
        "ranking_weight": weights.ranking,
        "closure_weight": weights.closure,
        "hidden_weight": weights.hidden,
    }
    found = next((f"{name} is {weight:g}" for name, weight in others.items() if weight), None)
    if divergence != "forward_kl":
        found = f"divergence is {divergence}"
    if found:
        msg = (
            f"distillation.{found}, but the soft labels in {labels.folder} are lists of items, "
            "whose losses are forward KL or a rank loss: their teacher has neither states nor a "
            "score for every item. Leave that setting out."
        )
        raise ValueError(msg)
