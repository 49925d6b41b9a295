import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.compression.export import export_onnx
from recsys_core.compression.parity import Parity, ParityError, check_parity, graph_parity, parity
from recsys_core.compression.quantization import quantize
from recsys_core.models.recommender import Recommender

GOOD = Parity(
    n_histories=9,
    max_abs_difference=0.3,
    exact_max_abs_difference=1e-5,
    correlation=1.0,
    overlap_at_10=0.97,
)


def test_a_faithful_graph_agrees(
    model: Recommender, graph: Path, active: list[int], histories: list[np.ndarray]
) -> None:
    figures = graph_parity(model, graph, active=active, histories=histories, exclude_seen=False)
    assert figures.n_histories == sum(bool(set(h) & set(active)) for h in histories)
    assert figures.max_abs_difference < 1e-4
    assert figures.correlation == pytest.approx(1)
    assert figures.overlap_at_10 == pytest.approx(1, abs=0.01)


def test_a_served_model_is_compared_beside_the_graph_that_it_was_made_of(
    model: Recommender,
    graph: Path,
    active: list[int],
    histories: list[np.ndarray],
    tmp_path: Path,
) -> None:
    quantize(graph, tmp_path / "model.onnx")
    figures = parity(model, graph, tmp_path, histories, active, exclude_seen=False)
    assert figures.exact_max_abs_difference < 1e-4 < figures.max_abs_difference
    check_parity(figures, min_overlap=0.9)


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


def test_bounds_and_missing_figures() -> None:
    check_parity(GOOD, min_overlap=0.97)
    with pytest.raises(ParityError, match=r"shares 0\.970 of its ten best .* at least 0\.980"):
        check_parity(GOOD, min_overlap=0.98)
    with pytest.raises(ParityError, match=r"differs .* by 1e-05.*less than 1e-06"):
        check_parity(GOOD, min_overlap=0.9, max_exact_difference=1e-6)
    for field in ("overlap_at_10", "exact_max_abs_difference"):
        figures = GOOD.model_copy(update={field: float("nan")})
        with pytest.raises(ParityError, match="nan"):
            check_parity(figures, min_overlap=0.0, max_exact_difference=1.0)


def test_items_that_are_never_recommended_are_not_compared(
    model: Recommender, popularity: np.ndarray, active: list[int], tmp_path: Path
) -> None:
    """The graph has another item 1, which both users had before the window."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.id_embedding[1] += 5.0
    export_onnx(changed, tmp_path / "changed.onnx", active=active, popularity=popularity)
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
