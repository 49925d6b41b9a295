"""The rank that a model gives each held-out event in the full catalogue."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.histories.cases import BoolArray, Cases, FloatArray, IntArray, Ranker
from recsys_core.settings import Progress, silent


def rank_targets(
    ranker: Ranker,
    cases: Cases,
    candidates: BoolArray,
    *,
    exclude_seen: bool,
    batch_size: int = 256,
    progress: Progress = silent,
) -> NDArray[np.int64]:
    """Rank each case's target among the candidates.

    Ties and NaN count against the model: the target ranks behind every item with the same score (so
    a constant scorer comes last, not first) and behind every item whose score is NaN.

    Args:
        ranker: The model.
        cases: The cases; their targets are candidates.
        candidates: `[n_items + 1]` by item_idx.
        exclude_seen: Leave the items of a case's history out of its ranking.
        batch_size: Cases scored at once; memory is a few times batch_size × n_items × 4 bytes.
        progress: Called after each batch.

    Returns:
        Ranks from 1; n_items + 1 where the target's own score is -inf or NaN.

    Raises:
        ValueError: The ranker's answer has another shape than `[batch, n_items + 1]`.
    """
    return rank_with_biases(
        ranker,
        cases,
        candidates,
        biases=(None,),
        exclude_seen=exclude_seen,
        batch_size=batch_size,
        progress=progress,
    )[0]


def rank_with_biases(
    ranker: Ranker,
    cases: Cases,
    candidates: BoolArray,
    *,
    biases: Sequence[FloatArray | None],
    exclude_seen: bool,
    batch_size: int = 256,
    progress: Progress = silent,
) -> NDArray[np.int64]:
    """Ranks as in `rank_targets`, with each of several item biases added to the scores.

    The model scores each case once. Nothing is added after an empty history.

    Args:
        ranker: The model.
        cases: The cases.
        candidates: `[n_items + 1]` by item_idx.
        biases: What is added to each item's score, `[n_items + 1]`; None for nothing.
        exclude_seen: Leave the items of a case's history out of its ranking.
        batch_size: Cases scored at once.
        progress: Called after each batch.

    Returns:
        `[len(biases), len(cases)]`.

    Raises:
        ValueError: The ranker's answer has another shape than `[batch, n_items + 1]`.
    """
    ranks = np.empty((len(biases), len(cases)), np.int64)
    for begin in range(0, len(cases), batch_size):
        end = min(begin + batch_size, len(cases))
        histories = cases.histories[begin:end]
        scores = ranker(histories)
        if scores.shape != (end - begin, len(candidates)):
            msg = (
                f"A ranker must score {end - begin} histories × {len(candidates)} items (column 0 "
                f"is the padding), got an array of shape {scores.shape}."
            )
            raise ValueError(msg)
        seen: Sequence[IntArray] = histories if exclude_seen else []
        empty = [len(history) == 0 for history in histories]
        for row, bias in zip(ranks, biases, strict=True):
            changed = scores
            if bias is not None:
                changed = scores + bias
                changed[empty] = scores[empty]
            row[begin:end] = _rank_batch(changed, cases.targets[begin:end], candidates, seen)
        progress(end / len(cases), f"{end:,} of {len(cases):,} cases ranked")
    return ranks


def _rank_batch(
    scores: FloatArray, targets: IntArray, candidates: BoolArray, seen: Sequence[IntArray]
) -> NDArray[np.int64]:
    rows = np.arange(len(targets))
    target_scores = scores[rows, targets]
    ahead = ~(scores < target_scores[:, None]) & candidates
    if seen:
        ahead[np.repeat(rows, [len(items) for items in seen]), np.concatenate(seen)] = False
    ahead[rows, targets] = False
    absent = np.isnan(target_scores) | np.isneginf(target_scores)
    return np.where(absent, len(candidates), 1 + np.count_nonzero(ahead, axis=1))
