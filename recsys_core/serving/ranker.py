"""A served model as a ranker: evaluation scores the artefact that ships, string ids included."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.histories.cases import FloatArray, Ranker
from recsys_core.serving.scorer import Scorer


def scorer_ranker(scorer: Scorer, item_ids: Sequence[str]) -> Ranker:
    """Scores by item_idx from a served model, which may know fewer items.

    Args:
        scorer: The served model.
        item_ids: The item ids in the order of item_idx, from 1.
    """
    by_idx = np.array(["", *item_ids], dtype=object)
    idx_of = {item_id: idx for idx, item_id in enumerate(item_ids, start=1)}
    columns = np.array([idx_of.get(item_id, 0) for item_id in scorer.item_ids], np.int64)

    def score(histories: Sequence[NDArray[np.int32]]) -> FloatArray:
        scores = np.full((len(histories), len(by_idx)), -np.inf, np.float32)
        scores[:, columns] = scorer.scores([by_idx[history].tolist() for history in histories])
        return scores

    return score
