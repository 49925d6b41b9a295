"""The smallest student that is good enough, with hand-made values of users."""

import numpy as np

from recsys_core.evaluation.family import Student, judge, smallest

LUCK = np.random.default_rng(0).random(2000)
"""NDCG@10 of users; the mean is about .5."""


def choose(max_loss: float, **students: Student) -> str:
    return smallest(students, judge(students, max_loss=max_loss))


def test_the_smallest_ships_that_is_close_to_the_best() -> None:
    large = Student(300, LUCK)
    small, smaller = Student(200, LUCK - 0.005), Student(100, LUCK - 0.02)
    students = {"large": large, "small": small, "smaller": smaller}
    judged = judge(students, max_loss=0.02)
    assert judged["large"] == (0.0, True, True)
    assert judged["small"].is_good_enough, "it loses 1 % of the best one's NDCG"
    assert not judged["smaller"].is_good_enough, "it loses 4 %"
    np.testing.assert_allclose(judged["small"].low, -0.005)
    assert smallest(students, judged) == "small"
    assert choose(0.05, **students) == "smaller"
    assert choose(0.0, **students) == "large"


def test_a_small_student_that_is_the_best_ships() -> None:
    assert choose(0.02, large=Student(300, LUCK - 0.001), small=Student(100, LUCK)) == "small"


def test_a_large_student_that_is_bad_does_not_ship() -> None:
    assert choose(0.02, large=Student(300, LUCK / 2), small=Student(100, LUCK)) == "small"


def test_in_doubt_the_larger_one_ships() -> None:
    noise = np.random.default_rng(1).normal(0, 0.3, 20)
    noisy = LUCK[:20] - 0.001 + noise - noise.mean()
    assert choose(0.02, large=Student(300, LUCK[:20]), small=Student(100, noisy)) == "large"


def test_of_equal_students_the_first_ships() -> None:
    assert choose(0.02, one=Student(100, LUCK), other=Student(100, LUCK)) == "one"


def test_a_student_above_the_allowed_size_is_no_competitor() -> None:
    large, small, smaller = Student(300, LUCK), Student(200, LUCK / 2), Student(100, LUCK / 4)
    students = {"large": large, "small": small, "smaller": smaller}
    judged = judge(students, max_loss=0.02, max_bytes=200)
    assert not judged["large"].fits
    assert not judged["large"].is_good_enough
    assert judged["large"].low > 0, "it is better than the best that may ship"
    assert judged["small"] == (0.0, True, True)
    assert not judged["smaller"].is_good_enough
    assert smallest(students, judged) == "small"
    assert smallest(students, judge(students, max_loss=0.02, max_bytes=300)) == "large"


def test_where_no_student_is_small_enough_the_smallest_ships() -> None:
    students = {"large": Student(300, LUCK), "small": Student(200, LUCK / 2)}
    judged = judge(students, max_loss=0.02, max_bytes=100)
    assert [verdict.fits for verdict in judged.values()] == [False, False]
    assert smallest(students, judged) == "small"
