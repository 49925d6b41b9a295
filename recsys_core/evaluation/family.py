"""Which of several students ships: the smallest that ranks nearly as well as the best."""

from collections.abc import Mapping
from typing import NamedTuple

from recsys_core.evaluation.metrics import Values
from recsys_core.evaluation.statistics import paired_difference


class Student(NamedTuple):
    """A student that could ship: its bytes on disk, and NDCG@10 of each user."""

    size_bytes: int
    ndcg_at_10: Values


class Judged(NamedTuple):
    """The verdict on a student.

    Attributes:
        low: Lower bound of its difference from the best student that may ship.
        fits: Whether it is small enough to ship.
        is_good_enough: Whether it may ship and ranks nearly as well as the best.
    """

    low: float
    fits: bool
    is_good_enough: bool


def judge(
    students: Mapping[str, Student], *, max_loss: float, max_bytes: float | None = None
) -> dict[str, Judged]:
    """Compare each student with the best one that may ship, over the same users.

    A student is good enough if the lower bound of its difference, one-sided at 95 %, is at most the
    allowed share of the best one's NDCG@10 below zero. In doubt a larger one ships.

    Args:
        students: The students by name.
        max_loss: Share of the best one's NDCG@10 that a student may lose.
        max_bytes: Larger students can't ship, so none is compared with them. If all are larger, the
            smallest has no competitor. None: no bound.
    """
    fitting = [
        name for name in students if max_bytes is None or students[name].size_bytes <= max_bytes
    ]
    competing = fitting or [min(students, key=lambda name: students[name].size_bytes)]
    best = max(competing, key=lambda name: float(students[name].ndcg_at_10.mean()))
    reference = students[best].ndcg_at_10
    allowed = -max_loss * float(reference.mean())
    judged: dict[str, Judged] = {}
    for name, student in students.items():
        low = 0.0 if name == best else paired_difference(student.ndcg_at_10, reference).low
        is_good_enough = name in competing and (name == best or low >= allowed)
        judged[name] = Judged(low, name in fitting, is_good_enough)
    return judged


def smallest(students: Mapping[str, Student], judged: Mapping[str, Judged]) -> str:
    """Name of the smallest student that is good enough; of equal ones, the first."""
    good = [name for name in students if judged[name].is_good_enough]
    return min(good, key=lambda name: students[name].size_bytes)
