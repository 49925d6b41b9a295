"""The recency prior: recent popularity, added to the scores of a trained network.

A network that learns from years of events knows how popular an item was on average, not how popular
it is this week. If popularity has changed and taste has not, the correction of item i's score is
log(share of recent events) - log(share of training events), as for any classifier whose classes
have become more or less frequent. A network is no perfect classifier, so either term has a weight:

    b_i = γ · log(recent share of i) - δ · log(training share of i)

With δ = γ it corrects for the change; with δ = 0 it adds popularity itself, and a large γ ranks
nearly by recent popularity alone. Validation events choose the weights. Where none of them rank
better than the network alone, nothing is added.

Source: Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori probabilities: a
simple procedure".
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys_core.data.histories.cases import FloatArray
from recsys_core.evaluation.metrics import Values
from recsys_core.evaluation.popularity import Counts
from recsys_core.evaluation.statistics import CONFIDENCE, paired_difference

_PSEUDO_EVENTS = 100
"""Recent events that are added in the proportions of training, so that an item without a recent
event has a share, and the more popular ones among these a larger one."""


class PriorWeights(NamedTuple):
    """Weights of the two logarithms."""

    gamma: float
    delta: float


PRIOR_WEIGHTS = (
    *(PriorWeights(gamma, 0.0) for gamma in (0.25, 0.5, 1.0, 2.0, 4.0, 16.0)),
    *(PriorWeights(gamma, gamma) for gamma in (0.25, 0.5, 1.0)),
)
"""What validation chooses from: popularity added, up to nearly alone, and the correction."""


class RecencyPrior(BaseModel):
    """The prior that a network got.

    Attributes:
        gamma: Weight of the log share of recent events.
        delta: Weight of the log share of training events, subtracted.
        ndcg_without: NDCG@10 of the network alone on validation events.
        ndcg_at_10: The same with the prior.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float
    delta: float
    ndcg_without: float
    ndcg_at_10: float

    def __str__(self) -> str:
        return (
            f"Recent popularity is added to scores: γ={self.gamma:g}, δ={self.delta:g}: "
            f"validation NDCG@10 {self.ndcg_without:.4f} → {self.ndcg_at_10:.4f}."
        )


def log_shares(recent_count: Counts, train_count: Counts) -> tuple[Values, Values]:
    """Smoothed logarithms of each item's share of recent and of training events.

    Args:
        recent_count: `[n_items]` recent training events of item_idx 1 … n_items.
        train_count: `[n_items]` all training events.

    Returns:
        Two arrays `[n_items]`, in nats.
    """
    trained = (train_count + 1) / (train_count.sum() + len(train_count))
    recent = (recent_count + _PSEUDO_EVENTS * trained) / (recent_count.sum() + _PSEUDO_EVENTS)
    return np.log(recent), np.log(trained)


def prior_bias(weights: PriorWeights, recent_count: Counts, train_count: Counts) -> FloatArray:
    """The item bias of a prior: what is added to the score of each item.

    The popularity of an item without a training event is unknown, not low. It gets the mean over
    recent events of what their items get, so that its score keeps its distance from theirs.

    Args:
        weights: γ and δ.
        recent_count: `[n_items]` recent training events of item_idx 1 … n_items.
        train_count: `[n_items]` all training events.

    Returns:
        `[n_items + 1]` by item_idx; 0 for the padding.
    """
    recent, trained = log_shares(recent_count, train_count)
    bias = weights.gamma * recent - weights.delta * trained
    known = train_count > 0
    bias[~known] = np.average(bias[known], weights=np.exp(recent[known]))
    return np.append(0, bias).astype(np.float32)


def choose_prior(
    without: Values, with_prior: Mapping[PriorWeights, Values]
) -> tuple[PriorWeights, RecencyPrior] | None:
    """The weights with the highest mean NDCG@10, if that is a gain.

    Args:
        without: NDCG@10 of each user by the network alone.
        with_prior: The same users' NDCG@10 with each prior; the first of equals is chosen.

    Returns:
        The weights and their record, or None where the lower bound of the paired difference from no
        prior is not above 0. Because the best of several is tested, its confidence is that of
        `CONFIDENCE` for all of them together.
    """
    best = max(with_prior, key=lambda weights: float(with_prior[weights].mean()))
    confidence = 1 - (1 - CONFIDENCE) / len(with_prior)
    if not paired_difference(with_prior[best], without, confidence=confidence).low > 0:
        return None
    return best, RecencyPrior(
        gamma=best.gamma,
        delta=best.delta,
        ndcg_without=float(without.mean()),
        ndcg_at_10=float(with_prior[best].mean()),
    )
