"""The recency prior: its values by hand, and when it is chosen."""

import numpy as np
import pytest

from recsys_core.evaluation.recency_prior import (
    PRIOR_WEIGHTS,
    PriorWeights,
    choose_prior,
    log_shares,
    prior_bias,
)

RECENT = np.array([30, 0, 70, 0])
TRAINED = np.array([94, 49, 349, 4])
"""With one more event for each of four items, these are 19, 10, 70 and 1 % of 500."""


def test_the_shares_are_those_of_a_hand_computed_example() -> None:
    recent, trained = (np.exp(shares) for shares in log_shares(RECENT, TRAINED))
    np.testing.assert_allclose(trained, [0.19, 0.10, 0.70, 0.01])
    # 100 recent events, and 100 more in the proportions of training.
    np.testing.assert_allclose(recent, [49 / 200, 10 / 200, 140 / 200, 1 / 200])


def test_the_prior_weighs_their_logarithms() -> None:
    bias = prior_bias(PriorWeights(2.0, 0.5), RECENT, TRAINED)
    expected = [
        2 * np.log(0.245) - 0.5 * np.log(0.19),
        2 * np.log(0.05) - 0.5 * np.log(0.10),
        2 * np.log(0.70) - 0.5 * np.log(0.70),
        2 * np.log(0.005) - 0.5 * np.log(0.01),
    ]
    assert bias[0] == 0
    np.testing.assert_allclose(bias[1:], expected, rtol=1e-6)


def test_equal_weights_add_nothing_where_shares_have_not_changed() -> None:
    bias = prior_bias(PriorWeights(1.0, 1.0), np.array([20, 10, 70]), np.array([199, 99, 699]))
    np.testing.assert_allclose(bias[1:], 0, atol=0.02)


def test_a_new_item_gets_the_mean_of_what_is_chosen_now() -> None:
    recent, trained = np.array([60, 0, 40]), np.array([597, 0, 398])
    bias = prior_bias(PriorWeights(2.0, 0.0), recent, trained)
    shares = np.exp(log_shares(recent, trained)[0])[[0, 2]]
    assert bias[2] == pytest.approx(np.average(bias[[1, 3]], weights=shares), rel=1e-6)
    assert bias[3] < bias[2] < bias[1]


def test_a_large_gamma_ranks_by_recent_popularity() -> None:
    random = np.random.default_rng(0)
    recent = random.permutation(200)
    trained = recent + random.integers(1, 50, 200)
    scores = random.normal(size=200) * 0.1
    scores += prior_bias(max(PRIOR_WEIGHTS), recent, trained)[1:]
    agreement = np.corrcoef(np.argsort(np.argsort(scores)), recent)[0, 1]
    assert agreement > 0.999


def test_no_recent_event_leaves_finite_scores() -> None:
    for weights in PRIOR_WEIGHTS:
        bias = prior_bias(weights, np.zeros(3, np.int64), np.array([5, 0, 1]))
        assert np.isfinite(bias).all()


FIRST, SECOND = PRIOR_WEIGHTS[:2]


def test_the_best_is_chosen_if_it_is_a_gain() -> None:
    without = np.full(50, 0.25)
    chosen = choose_prior(without, {FIRST: without + 0.125, SECOND: without + 0.25})
    assert chosen is not None
    weights, prior = chosen
    assert weights == SECOND
    assert (prior.gamma, prior.delta) == SECOND
    assert (prior.ndcg_without, prior.ndcg_at_10) == (0.25, 0.5)
    assert str(prior) == (
        "Recent popularity is added to scores: γ=0.5, δ=0: validation NDCG@10 0.2500 → 0.5000."
    )


def test_nothing_is_chosen_that_chance_can_explain() -> None:
    without = np.random.default_rng(1).random(50)
    lucky = without.copy()
    lucky[0] += 0.5  # the mean is higher, but by one user
    assert choose_prior(without, {FIRST: lucky}) is None
    assert choose_prior(without, {FIRST: without, SECOND: without - 0.1}) is None


def test_of_nine_priors_that_gain_nothing_one_is_seldom_chosen() -> None:
    """At 95 % for the best alone, noise would be chosen in about a third of the cases."""
    random = np.random.default_rng(0)
    without = np.full(60, 0.25)
    chosen = [
        choose_prior(without, {one: without + random.normal(0, 0.2, 60) for one in PRIOR_WEIGHTS})
        for _ in range(200)
    ]
    assert sum(prior is not None for prior in chosen) <= 0.15 * len(chosen)
