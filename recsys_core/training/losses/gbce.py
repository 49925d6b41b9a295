"""Generalised binary cross-entropy (gSASRec), for large catalogues."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.negatives import negatives_loss
from recsys_core.training.losses.seen import Seen


def gbce(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    negatives: Int[Tensor, " negatives"],
    n_items: int,
    calibration: float = 0.75,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Generalised binary cross-entropy: −β·log σ(target) − Σ log(1 − σ(negative)).

    The factor β corrects the overconfidence of a model that is trained on few negatives. A target
    that was also drawn is removed from the negatives of its position.

    Args:
        states: The model's state at each position.
        item_vectors: Row 0 is padding.
        targets: Row of the next item, from 1.
        negatives: Rows of the drawn items; uniform draws.
        n_items: Number of items that they were drawn from.
        calibration: From 0 (β = 1, plain binary cross-entropy) to 1 (sigmoids of the scores are
            calibrated probabilities).
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or there is not one target or weight per position.

    Source: Petrov and Macdonald 2023 (gSASRec), arXiv:2308.07192, equation 13.
    """
    rate = min(1.0, len(negatives) / max(1, n_items - 1))
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)

    def pair_loss(logits: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        losses = F.softplus(logits).sum(dim=1) + beta * F.softplus(-target_logits)
        logits.sigmoid_()
        return losses, -beta * torch.sigmoid(-target_logits), torch.ones_like(losses)

    return negatives_loss(
        states,
        item_vectors,
        targets,
        negatives,
        pair_loss,
        shift=states.new_zeros(len(negatives)),
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )
