"""The smallest student that is good enough, with hand-made values of users."""

import numpy as np

from recsys_core.evaluation.family import Candidate, judge, smallest

LUCK = np.random.default_rng(0).random(2000)
"""NDCG@10 of users; the mean is about .5."""


def choose(max_loss: float, **candidates: Candidate) -> str:
    return smallest(candidates, judge(candidates, max_loss=max_loss))


def test_the_smallest_ships_that_is_close_to_the_best() -> None:
    large = Candidate(300, LUCK)
    small, smaller = Candidate(200, LUCK - 0.005), Candidate(100, LUCK - 0.02)
    candidates = {"large": large, "small": small, "smaller": smaller}
    judged = judge(candidates, max_loss=0.02)
    assert judged["large"] == (0.0, True)
    assert judged["small"].is_good_enough, "it loses 1 % of the best one's NDCG"
    assert not judged["smaller"].is_good_enough, "it loses 4 %"
    np.testing.assert_allclose(judged["small"].low, -0.005)
    assert smallest(candidates, judged) == "small"
    assert choose(0.05, **candidates) == "smaller"
    assert choose(0.0, **candidates) == "large"


def test_a_small_student_that_is_the_best_ships() -> None:
    assert choose(0.02, large=Candidate(300, LUCK - 0.001), small=Candidate(100, LUCK)) == "small"


def test_a_large_student_that_is_bad_does_not_ship() -> None:
    assert choose(0.02, large=Candidate(300, LUCK / 2), small=Candidate(100, LUCK)) == "small"


def test_in_doubt_the_larger_one_ships() -> None:
    noise = np.random.default_rng(1).normal(0, 0.3, 20)
    noisy = LUCK[:20] - 0.001 + noise - noise.mean()
    assert choose(0.02, large=Candidate(300, LUCK[:20]), small=Candidate(100, noisy)) == "large"


def test_of_equal_students_the_first_ships() -> None:
    assert choose(0.02, one=Candidate(100, LUCK), other=Candidate(100, LUCK)) == "one"
