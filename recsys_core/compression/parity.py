"""Parity: how close the scores of an exported graph are to those of its model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from recsys_core.json_file import JsonFile
from recsys_core.models.recommender import Recommender
from recsys_core.serving.scorer import open_session, pad_rows

TOP = 10
_BATCH = 64
_NONE = np.zeros(0, np.int64)

Precision = Literal["int8", "fp32"]
Scores = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]


class GraphParity(BaseModel):
    """Differences between a graph and its model, over all histories with an active item.

    Items that are never recommended after a history are not compared. `overlap_at_10` is the mean
    share of the model's ten best items that are among the graph's ten best; `correlation` is the
    mean over histories of the Pearson correlation of the scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_histories: int
    max_abs_difference: float
    correlation: float
    overlap_at_10: float


class Difference(BaseModel):
    """A paired difference of two means with its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float


class Parity(GraphParity, JsonFile):
    """How close the served model is to its network, and what its rounding costs.

    Attributes:
        exact_max_abs_difference: Largest difference of the fp32 graph from the network.
        precision: Of the weights that are served.
        ndcg_at_10: Of the fp32 graph, on validation events.
        rounded_ndcg_difference: NDCG@10 of the int8 graph minus that of the fp32 graph, over the
            same users, each bound one-sided at 95 %.
    """

    file_name = "parity.json"

    exact_max_abs_difference: float
    precision: Precision
    ndcg_at_10: float
    rounded_ndcg_difference: Difference


class ParityError(ValueError):
    """An exported fp32 graph differs from its model."""


def graph_parity(
    model: Recommender,
    graph: Path,
    *,
    active: Sequence[int],
    histories: Sequence[Ints],
    exclude_seen: bool,
) -> GraphParity:
    """Compare the raw scores of a graph with those of its model.

    Args:
        model: Put into evaluation mode; computes scores in fp32 on its device.
        graph: The `.onnx` file of `export_onnx` or `quantize`.
        active: item_idx of the graph's items, as passed to `export_onnx`.
        histories: Real histories as item_idx, oldest event first, of any length.
        exclude_seen: Compare only the scores of items that are not in the history.

    Raises:
        ValueError: No history holds an active item, so there is nothing to compare.
    """
    row_of = np.zeros(model.n_items + 1, dtype=np.int64)
    row_of[list(active)] = np.arange(1, len(active) + 1)
    known = [history[row_of[history] > 0] for history in histories]
    known = [history for history in known if len(history)]
    if not known:
        msg = f"None of the {len(histories)} histories holds an active item: nothing to compare."
        raise ValueError(msg)
    known.sort(key=len)
    session = open_session(graph)
    figures: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(known), _BATCH):
        whole = known[start : start + _BATCH]
        batch = [history[-model.config.max_length :] for history in whole]
        inputs = {
            "history": pad_rows([row_of[history] for history in batch]),
            "exclude": np.zeros((len(batch), 1), dtype=np.int64),
            "k": np.ones(1, dtype=np.int64),
        }
        scores: Scores = session.run(["scores"], inputs)[0]
        expected = _model_scores(model, active, batch)
        seen = [row_of[history] - 1 if exclude_seen else _NONE for history in whole]
        figures.append(_compare(expected, scores, seen))
    differences, correlations, overlaps = np.concatenate(figures, axis=1)
    if not len(differences):
        msg = f"Every active item is in each of the {len(known)} histories: nothing to compare."
        raise ValueError(msg)
    return GraphParity(
        n_histories=len(differences),
        max_abs_difference=float(differences.max()),
        correlation=float(correlations.mean()),
        overlap_at_10=float(overlaps.mean()),
    )


def check_export(figures: GraphParity, *, max_difference: float = 1e-3) -> None:
    """Refuse an fp32 graph that differs from its network.

    Args:
        figures: The result of `graph_parity`.
        max_difference: Bound on the difference of any score.

    Raises:
        ParityError: The bound is broken, or the difference is NaN.
    """
    if not figures.max_abs_difference < max_difference:
        msg = (
            f"A score of the fp32 graph differs from the network's by "
            f"{figures.max_abs_difference:.2g}, over {figures.n_histories} histories; less than "
            f"{max_difference:.2g} is required. The export itself is wrong, so the model can't be "
            "served: check the versions of torch and onnxruntime."
        )
        raise ParityError(msg)


def ranks_as_well(
    overlap: float, difference: Difference, *, min_overlap: float, max_loss: float
) -> bool:
    """Whether rounding leaves the ranking as good as it was.

    Where scores are close to each other, rounding changes their order without making it worse, so
    the overlap of the ten best items alone refuses good models. The difference in NDCG decides
    where it can; with few users its interval is wide, and the overlap decides.

    >>> undecided = Difference(mean=-0.001, low=-0.01, high=0.008)
    >>> ranks_as_well(0.95, undecided, min_overlap=0.9, max_loss=0.002)
    True
    >>> ranks_as_well(0.85, undecided, min_overlap=0.9, max_loss=0.002)
    False

    Args:
        overlap: Mean share of the network's ten best items that the rounded graph ranks so.
        difference: NDCG@10 of the rounded graph minus that of the exact one.
        min_overlap: Smallest overlap that is enough where NDCG can't decide.
        max_loss: Largest loss of NDCG@10 that is accepted.
    """
    harmless, harmful = difference.low >= -max_loss, difference.high < -max_loss
    return harmless or (overlap >= min_overlap and not harmful)


@torch.no_grad()
def _model_scores(model: Recommender, active: Sequence[int], histories: Sequence[Ints]) -> Scores:
    """The model's own scores of the active items, `[batch, n_active]`."""
    device = model.id_embedding.device
    vectors = model.eval().item_vectors()
    states = model.encode(torch.tensor(pad_rows(histories), device=device), vectors)
    newest = torch.tensor([len(history) - 1 for history in histories], device=device)
    state = states[torch.arange(len(histories), device=device), newest]
    scores = state @ vectors[list(active)].T
    if model.item_bias is not None:
        scores = scores + model.item_bias[list(active)]
    return scores.to("cpu").numpy()


def _compare(expected: Scores, actual: Scores, seen: Sequence[Ints]) -> npt.NDArray[np.float64]:
    """Largest difference, correlation and overlap of the best items: `[3, batch]`."""
    figures: list[tuple[float, float, float]] = []
    for exact, rounded, columns in zip(expected, actual, seen, strict=True):
        compared = np.delete(np.arange(len(exact)), columns)
        if len(compared):
            one, other = (scores[compared].astype(np.float64) for scores in (exact, rounded))
            best = [np.argsort(-scores, kind="stable")[:TOP] for scores in (one, other)]
            overlap = float(np.isin(best[0], best[1]).mean())
            figures.append((float(np.abs(one - other).max()), _correlation(one, other), overlap))
    return np.array(figures).reshape(-1, 3).T


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Pearson correlation; for constant scores, 1 if both sides are constant and 0 otherwise."""
    one, other = one - one.mean(), other - other.mean()
    product = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / product if product else float(one.any() == other.any())
