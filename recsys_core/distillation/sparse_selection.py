"""The loss that fits what a store of sparse labels holds."""

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor

from recsys_core.distillation.candidates import candidates_of
from recsys_core.distillation.losses.listed import ListTerm, listed_loss
from recsys_core.distillation.losses.ranked_list import ranked_list
from recsys_core.distillation.losses.sampled_kl import sampled_kl
from recsys_core.distillation.losses.top_k_kl import top_k_kl
from recsys_core.distillation.losses.within_list_kl import within_list_kl
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
        labels = batch.sparse_labels.each(lambda part: part.to(device))
        ids = labels.top_ids if labels.sample_ids is None else labels.sample_ids
        candidates = candidates_of(restricted, len(item_vectors), device, ids)
        assert candidates.listed is not None
        return listed_loss(
            states,
            item_vectors,
            candidates.targets,
            _term_of(labels, temperature),
            ids=candidates.listed,
            kd_weight=kd_weight,
            weights=None if batch.weights is None else batch.weights.to(device),
            seen=candidates.seen,
            candidates=candidates.sampled,
        )

    return loss


def _term_of(labels: SparseBatch, temperature: float) -> ListTerm:
    if labels.sample_counts is not None:
        return sampled_kl(labels.sample_counts)
    if labels.top_logits is None:
        return ranked_list()
    if labels.log_normalizer is None:
        return within_list_kl(labels.top_logits, temperature=temperature)
    return top_k_kl(labels.top_logits, labels.log_normalizer)
