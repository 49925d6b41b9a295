# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""A recommender as a ranker: scores of the whole catalogue after each history."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys_core.data.histories.cases import CaseHistories, Ranker
from recsys_core.models.context import Context
from recsys_core.models.ensemble import AnyRecommender
from recsys_core.models.recommender import CPU_POSITIONS


def pad_histories(
    histories: Sequence[NDArray[np.integer[Any]]], max_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The newest `max_length` values of each history (items, kinds or times), right-padded with 0.

    Returns:
        `[batch, length]` with length at least 1, and the lengths `[batch]`.

    Example:
        >>> padded, lengths = pad_histories([np.array([4, 2, 7]), np.array([5])], max_length=2)
        >>> padded.tolist(), lengths.tolist()
        ([[2, 7], [5, 0]], [2, 1])
    """
    newest = [history[-max_length:] for history in histories]
    lengths = np.array([len(history) for history in newest], np.int64)
    padded = np.zeros((len(newest), max(1, int(lengths.max(initial=0)))), np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(
        [np.empty(0, np.int64), *newest]
    )
    return padded, lengths


def model_ranker(
    model: AnyRecommender,
    cold_start_scores: NDArray[np.float32] | None = None,
    *,
    with_bias: bool = True,
) -> Ranker:
    """A ranker by the model's scores; an empty history gets the cold-start scores.

    Args:
        model: In evaluation mode.
        cold_start_scores: `[n_items + 1]` by item_idx; None: zeros.
        with_bias: Whether the model's item bias, its recency prior, is added.
    """
    with torch.inference_mode():
        item_vectors = model.item_vectors()
    bias = model.item_bias if with_bias else None

    def score(histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        scores = np.empty((len(histories), len(item_vectors)), np.float32)
        size = len(histories) or 1
        if model.device.type == "cpu":
            longest = max((len(history) for history in histories), default=0)
            size = CPU_POSITIONS // max(1, min(longest, model.max_length))
        for begin in range(0, len(histories), size):
            part = histories[begin : begin + size]
            scores[begin : begin + size] = _score(part, model, item_vectors, bias)
        empty = [len(history) == 0 for history in histories]
        scores[empty] = 0 if cold_start_scores is None else cold_start_scores
        return scores

    return score


@torch.inference_mode()
def _score(
    histories: Sequence[NDArray[np.int32]],
    model: AnyRecommender,
    item_vectors: torch.Tensor,
    bias: torch.Tensor | None,
) -> NDArray[np.float32]:
    padded, lengths = pad_histories(histories, model.max_length)
    context = _context(histories, model) if model.reads_context else None
    states = model.encode(torch.from_numpy(padded).to(model.device), item_vectors, context)
    last = torch.from_numpy(np.maximum(lengths - 1, 0)).to(model.device)
    states = states[torch.arange(len(padded), device=model.device), last]
    scores = states.float() @ item_vectors.T
    if bias is not None:
        scores = scores + bias
    return scores.cpu().numpy()


def _context(histories: Sequence[NDArray[np.int32]], model: AnyRecommender) -> Context:
    if not isinstance(histories, CaseHistories):
        msg = (
            "This model reads the kinds and times of events: rank `CaseHistories`, not lists of "
            "items."
        )
        raise TypeError(msg)
    known = (histories.of_kinds(), histories.of_times())
    kinds, times = (
        torch.from_numpy(pad_histories(values, model.max_length)[0]) for values in known
    )
    return Context(kinds, times).to(model.device)
