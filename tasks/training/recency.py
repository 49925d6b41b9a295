"""The recency prior of a trained network, fitted on validation events."""

import numpy as np
import torch

from recsys_core.evaluation.recency_prior import (
    PRIOR_WEIGHTS,
    RecencyPrior,
    choose_prior,
    prior_bias,
)
from recsys_core.models.ensemble import AnyRecommender
from recsys_core.training.validation import Validator
from tasks.engine.stage import StageRun
from tasks.training.prepared import Prepared


def fit_recency_prior(
    run: StageRun, model: AnyRecommender, data: Prepared, validator: Validator
) -> RecencyPrior | None:
    """Set the network's `item_bias`, from training counts, if that ranks validation events better.

    The prior is fitted after training, for each night and each network anew: teacher (an ensemble
    as a whole), student, control and compressed student. Losses and soft labels don't see it. The
    student learns its teacher's taste; what is popular this week is read from counts, which need no
    teacher.

    Args:
        run: Its log says what is added.
        model: Trained, in evaluation mode; changed in place.
        data: Holds the counts.
        validator: Its cases choose the weights; the network scores each once.

    Returns:
        What was chosen. None if nothing is gained, or if no event is more recent than others, as in
        a leave-one-out split.
    """
    model.item_bias = None
    recent, trained = (data.items[name].to_numpy() for name in ("recent_count", "train_count"))
    if np.array_equal(recent, trained):
        return None
    biases = {weights: prior_bias(weights, recent, trained) for weights in PRIOR_WEIGHTS}
    without, *with_prior = validator.with_biases(validator.ranker(model), [None, *biases.values()])
    chosen = choose_prior(without, dict(zip(biases, with_prior, strict=True)))
    if chosen is None:
        return None
    weights, prior = chosen
    model.item_bias = torch.from_numpy(biases[weights]).to(model.device)
    run.logger.info("%s", prior)
    return prior
