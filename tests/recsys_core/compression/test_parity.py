import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.compression.export import export_onnx
from recsys_core.compression.parity import (
    Difference,
    ParityError,
    check_export,
    graph_parity,
    ranks_as_well,
)
from recsys_core.models.recommender import Recommender


def test_a_faithful_graph_agrees(
    model: Recommender, graph: Path, active: list[int], histories: list[np.ndarray]
) -> None:
    figures = graph_parity(model, graph, active=active, histories=histories, exclude_seen=False)
    assert figures.n_histories == sum(bool(set(h) & set(active)) for h in histories)
    assert figures.max_abs_difference < 1e-4
    assert figures.correlation == pytest.approx(1)
    assert figures.overlap_at_10 == pytest.approx(1, abs=0.01)


def test_the_graph_of_another_model_does_not(
    make_model: Callable[..., Recommender],
    graph: Path,
    active: list[int],
    histories: list[np.ndarray],
) -> None:
    figures = graph_parity(
        make_model(), graph, active=active, histories=histories, exclude_seen=False
    )
    assert figures.overlap_at_10 < 0.6
    assert figures.correlation < 0.9


def test_the_order_of_the_items_matters(
    model: Recommender, graph: Path, active: list[int], histories: list[np.ndarray]
) -> None:
    figures = graph_parity(
        model, graph, active=active[::-1], histories=histories, exclude_seen=False
    )
    assert figures.max_abs_difference > 0.1


def test_a_wrong_export_is_refused(
    model: Recommender, graph: Path, active: list[int], histories: list[np.ndarray]
) -> None:
    figures = graph_parity(model, graph, active=active, histories=histories, exclude_seen=False)
    check_export(figures)
    for difference in (1e-3, float("nan")):
        wrong = figures.model_copy(update={"max_abs_difference": difference})
        with pytest.raises(ParityError, match=r"differs from the network's by .* less than 0\.001"):
            check_export(wrong)


@pytest.mark.parametrize(
    ("overlap", "low", "high", "as_well"),
    [
        (0.99, -0.001, 0.001, True),
        (0.50, -0.001, 0.001, True),  # near ties change places; NDCG says that it costs nothing
        (0.99, -0.010, 0.005, True),  # too few users for NDCG, so the overlap decides
        (0.89, -0.010, 0.005, False),
        (0.99, -0.010, -0.003, False),  # the items are mostly the same, but their order is worse
        (float("nan"), -0.010, 0.005, False),
        (0.99, float("nan"), float("nan"), True),
    ],
)
def test_rounding_is_judged_by_ndcg_first(
    overlap: float, low: float, high: float, as_well: bool
) -> None:
    difference = Difference(mean=(low + high) / 2, low=low, high=high)
    assert ranks_as_well(overlap, difference, min_overlap=0.9, max_loss=0.002) is as_well


def test_items_that_are_never_recommended_are_not_compared(
    model: Recommender, active: list[int], tmp_path: Path
) -> None:
    """The graph has another item 1, which both users had before the window."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.id_embedding[1] += 5.0
    export_onnx(changed, tmp_path / "changed.onnx", active=active)
    histories = [np.array([2, 3, 1] + [9, 8] * 6, np.int32), np.array([1] + [4, 5] * 6, np.int32)]
    differences = [
        graph_parity(
            model,
            tmp_path / "changed.onnx",
            active=active,
            histories=histories,
            exclude_seen=exclude_seen,
        ).max_abs_difference
        for exclude_seen in (True, False)
    ]
    assert differences[0] < 1e-4 < 0.1 < differences[1]
    every_item = np.array([*active, 2, 3], np.int32)
    with pytest.raises(ValueError, match="Every active item is in each of the 1 histories"):
        graph_parity(
            model,
            tmp_path / "changed.onnx",
            active=active,
            histories=[every_item],
            exclude_seen=True,
        )


def test_nothing_to_compare_is_an_error(model: Recommender, graph: Path, active: list[int]) -> None:
    retired = np.array([7, 14], dtype=np.int32)
    with pytest.raises(ValueError, match="None of the 2 histories holds an active item"):
        graph_parity(
            model, graph, active=active, histories=[retired, retired[:0]], exclude_seen=False
        )
