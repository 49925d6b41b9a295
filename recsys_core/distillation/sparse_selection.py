"""The loss that fits what a store of sparse labels holds."""

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor

from recsys_core.distillation.columns import columns_of
from recsys_core.distillation.losses.ranked_list import ranked_list_loss
from recsys_core.distillation.losses.sparse_kl import (
    sampled_kl_loss,
    top_k_kl_loss,
    within_list_kl_loss,
)
from recsys_core.training.gradients import Loss
from recsys_core.training.negative_sampling import RestrictedBatch
from recsys_core.training.sparse_batch import SparseBatch


def sparse_distillation(columns: Collection[str], *, kd_weight: float, temperature: float) -> Loss:
    """The loss for labels with these columns, the one that uses most of the teacher.

    Draws: KL to the whole distribution. Otherwise scores with their normaliser: KL over the listed
    items and any other item. Scores alone: KL within the list. Lists alone: their likelihood. Where
    negatives are drawn, the student's normaliser is estimated from them and from what is listed.

    Args:
        columns: See `SoftLabelDescription.columns`.
        kd_weight: Weight beside the hard cross-entropy.
        temperature: Divides the logits on both sides.

    Raises:
        ValueError: The temperature is not 1, and the labels are not scores without a normaliser:
            draws and normaliser are of the distribution at 1, and lists have no scores to divide.
    """
    within_list = "top_logits" in columns and not {"log_normalizer", "sample_ids"} & set(columns)
    if temperature != 1 and not within_list:
        msg = (
            f"These soft labels ({', '.join(columns)}) say nothing of the teacher at another "
            f"temperature than 1, found distillation.temperature = {temperature}. Set it to 1."
        )
        raise ValueError(msg)

    def loss(
        states: Float[Tensor, "positions dim"],
        item_vectors: Float[Tensor, "rows dim"],
        restricted: RestrictedBatch,
    ) -> Float[Tensor, ""]:
        device, batch = states.device, restricted.batch
        assert batch.sparse_labels is not None  # the training set has labels
        return _loss_of(
            batch.sparse_labels.each(lambda part: part.to(device)),
            states,
            item_vectors,
            restricted,
            kd_weight=kd_weight,
            temperature=temperature,
        )

    return loss


def _loss_of(
    labels: SparseBatch,
    states: Tensor,
    item_vectors: Tensor,
    restricted: RestrictedBatch,
    *,
    kd_weight: float,
    temperature: float,
) -> Tensor:
    device, batch = states.device, restricted.batch
    weights = None if batch.weights is None else batch.weights.to(device)
    ids = labels.top_ids if labels.sample_ids is None else labels.sample_ids
    columns = columns_of(restricted, len(item_vectors), device, ids)
    assert columns.listed is not None
    given, listed = (states, item_vectors, columns.targets), columns.listed
    seen, candidates = columns.seen, columns.candidates
    if labels.sample_counts is not None:
        return sampled_kl_loss(
            *given,
            sample_ids=listed,
            sample_counts=labels.sample_counts,
            kd_weight=kd_weight,
            weights=weights,
            seen=seen,
            candidates=candidates,
        )
    if labels.top_logits is None:
        return ranked_list_loss(
            *given,
            top_ids=listed,
            kd_weight=kd_weight,
            weights=weights,
            seen=seen,
            candidates=candidates,
        )
    if labels.log_normalizer is None:
        return within_list_kl_loss(
            *given,
            top_ids=listed,
            top_logits=labels.top_logits,
            kd_weight=kd_weight,
            temperature=temperature,
            weights=weights,
            seen=seen,
            candidates=candidates,
        )
    return top_k_kl_loss(
        *given,
        top_ids=listed,
        top_logits=labels.top_logits,
        log_normalizer=labels.log_normalizer,
        kd_weight=kd_weight,
        weights=weights,
        seen=seen,
        candidates=candidates,
    )
