import json
from math import isnan

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from recsys_core.evaluation.statistics import bootstrap_mean, paired_difference, summarise

RANDOM = np.random.default_rng(7)


def test_interval_agrees_with_scipy():
    values = RANDOM.exponential(size=400)
    ours = bootstrap_mean(values, n_resamples=5_000)
    scipys = stats.bootstrap(
        (values,), np.mean, n_resamples=5_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert_allclose([ours.low, ours.high], [scipys.low, scipys.high], atol=0.01)


def test_difference_bounds_agree_with_scipy_one_sided():
    a, b = RANDOM.normal(0.3, 1, 300), RANDOM.normal(0, 1, 300)
    ours = paired_difference(a, b, confidence=0.9, n_resamples=5_000)
    low = stats.bootstrap(
        (a - b,),
        np.mean,
        confidence_level=0.9,
        alternative="greater",
        method="percentile",
        n_resamples=5_000,
        rng=1,
    ).confidence_interval.low
    high = stats.bootstrap(
        (a - b,),
        np.mean,
        confidence_level=0.9,
        alternative="less",
        method="percentile",
        n_resamples=5_000,
        rng=1,
    ).confidence_interval.high
    assert_allclose([ours.low, ours.high], [low, high], atol=0.02)


def test_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(300):
        sample = np.random.default_rng(seed).exponential(size=100)
        interval = bootstrap_mean(sample, confidence=0.9, n_resamples=300, seed=seed)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.84 <= covered / 300 <= 0.94


def test_lower_bound_errs_as_seldom_as_it_says():
    wrong = 0
    for seed in range(300):
        pairs = np.random.default_rng(seed).normal(size=(2, 150))
        wrong += paired_difference(*pairs, confidence=0.9, n_resamples=300, seed=seed).low > 0
    assert 0.06 <= wrong / 300 <= 0.15


def test_pairing_sees_what_two_intervals_cannot():
    hard = RANDOM.normal(0, 10, 200)
    difference = paired_difference(hard + RANDOM.normal(0.1, 0.01, 200), hard)
    assert 0.09 < difference.low < difference.mean < difference.high < 0.11
    assert bootstrap_mean(hard).low < bootstrap_mean(hard).mean - 1


def test_equal_seeds_give_equal_bounds():
    values = RANDOM.random(50)
    whole = bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) == whole
    assert bootstrap_mean(values, seed=4) != whole


def test_so_many_resamples_that_they_are_drawn_in_chunks():
    values, n_resamples = RANDOM.random(50), 100_000
    drawn = np.random.default_rng(3).integers(0, 50, (n_resamples, 50))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    interval = bootstrap_mean(values, n_resamples=n_resamples, seed=3)
    assert_allclose(interval, [values.mean(), low, high])


def test_one_user_and_no_user():
    assert bootstrap_mean(np.array([0.4])) == (0.4, 0.4, 0.4)
    nothing = bootstrap_mean(np.array([]))
    assert all(isnan(bound) for bound in nothing)
    assert json.dumps(nothing.as_json(), allow_nan=False)


def test_nan_stays_nan():
    assert isnan(paired_difference(np.array([1.0, np.nan]), np.array([0.0, 0.0])).low)


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="3 and 2 values"):
        paired_difference(np.ones(3), np.ones(2))


@pytest.mark.parametrize("confidence", [-1.0, 1.0, 5.0])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired_difference(np.ones(3), np.ones(3), confidence=confidence)


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="0 resamples"):
        bootstrap_mean(np.ones(3), n_resamples=0)


def test_summary_of_models_over_the_same_cases():
    users = ["a", "a", "b"]
    figures = summarise({"good": np.array([1, 1, 2]), "bad": np.array([99, 1, 99])}, users)
    assert figures["good"]["n_users"] == 2
    assert figures["good"]["ndcg_at_10"]["mean"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert figures["bad"]["recall_at_10"]["mean"] == pytest.approx(1 / 4)
    assert figures["bad"]["mrr"]["mean"] == pytest.approx(((1 + 1 / 99) / 2 + 1 / 99) / 2)
    single = bootstrap_mean(np.array([1.0, 1 / np.log2(3)])).as_json()
    assert figures["good"]["ndcg_at_10"] == pytest.approx(single)


def test_summary_of_nothing_has_no_figures():
    figures = summarise({"model": np.array([], np.int64)}, [])
    assert figures["model"]["n_users"] == 0
    assert figures["model"]["mrr"] == {"mean": None, "low": None, "high": None}
    assert summarise({}, []) == {}
