"""From the scorer's ids and columns to item_idx."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from recsys_core.serving.ranker import scorer_ranker
from recsys_core.serving.scorer import Scorer


class _Scorer:
    """Knows d, b and an item that the catalogue lacks; scores say what it was asked."""

    item_ids = ("d", "gone", "b")

    def __init__(self) -> None:
        self.asked: list[Sequence[Sequence[str]]] = []

    def scores(self, histories: Sequence[Sequence[str]]) -> np.ndarray:
        self.asked.append(histories)
        rows = [[10 * len(history) + column for column in range(3)] for history in histories]
        return np.array(rows, np.float32)


def test_scores_go_to_the_column_of_their_item() -> None:
    scorer = _Scorer()
    rank = scorer_ranker(cast("Scorer", scorer), ["a", "b", "c", "d"])
    histories = [np.array([4, 1], np.int32), np.array([], np.int32)]
    scores = rank(histories)
    assert scorer.asked == [[["d", "a"], []]]
    assert scores.dtype == np.float32
    none = -np.inf
    np.testing.assert_array_equal(scores[:, 1:], [[none, 22, none, 20], [none, 2, none, 0]])
