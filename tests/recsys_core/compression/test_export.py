from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from recsys_core.compression.export import export_onnx
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.serving.scorer import open_session, pad_rows

NONE = np.zeros((1, 1), dtype=np.int64)


def model_scores(model: Recommender, active: list[int], rows: list[int]) -> np.ndarray:
    item_idx = torch.tensor([[active[row - 1] for row in rows]])
    with torch.no_grad():
        vectors = model.item_vectors()
        return (model.encode(item_idx, vectors)[0, -1] @ vectors[active].T).numpy()


def run(
    graph: Path, history: np.ndarray, exclude: np.ndarray | None = None, k: int = 10
) -> list[np.ndarray]:
    inputs: dict[str, Any] = {
        "history": history,
        "exclude": np.repeat(NONE, len(history), axis=0) if exclude is None else exclude,
        "k": np.array([k]),
    }
    return open_session(graph).run(["top_rows", "top_scores", "scores"], inputs)


@pytest.mark.parametrize("length", [1, 2, 7, 12])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_scores_are_the_models_for_any_batch_and_length(
    model: Recommender, graph: Path, active: list[int], length: int, batch: int
) -> None:
    rng = np.random.default_rng(length)
    rows = [rng.integers(1, len(active) + 1, rng.integers(1, length + 1)) for _ in range(batch)]
    scores = run(graph, pad_rows(rows))[2]
    expected = np.stack([model_scores(model, active, list(row)) for row in rows])
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_a_single_block_is_exported_too(
    make_model: Callable[..., Recommender], active: list[int], tmp_path: Path
) -> None:
    model = make_model(dim=16, n_layers=1)
    export_onnx(model, tmp_path / "g.onnx", active=active)
    scores = run(tmp_path / "g.onnx", np.array([[3, 1, 4, 0]]))[2]
    np.testing.assert_allclose(scores[0], model_scores(model, active, [3, 1, 4]), atol=1e-4)


def test_top_rows_are_the_best_scores(graph: Path) -> None:
    top_rows, top_scores, scores = run(graph, np.array([[5, 2, 0], [7, 8, 9]]), k=4)
    np.testing.assert_array_equal(top_rows - 1, np.argsort(-scores, axis=1)[:, :4])
    np.testing.assert_array_equal(top_scores, -np.sort(-scores, axis=1)[:, :4])


def test_an_empty_history_gets_the_first_rows(graph: Path, active: list[int]) -> None:
    top_rows, _, scores = run(graph, np.array([[0, 0], [3, 0]]), k=3)
    cold_start = np.arange(len(active), 0, -1)
    np.testing.assert_array_equal(scores[0], cold_start)
    assert top_rows[0].tolist() == [1, 2, 3]
    assert not np.allclose(scores[1], cold_start)


def test_excluded_rows_come_last_and_row_0_excludes_nothing(graph: Path, active: list[int]) -> None:
    history = np.array([[5, 2], [5, 2]])
    free = run(graph, history, k=len(active))[0][0].tolist()
    last_row, barred = len(active), free[0]
    exclude = np.array([[barred, 0, last_row, barred], [0, 0, 0, 0]])
    top_rows, top_scores, scores = run(graph, history, exclude, k=len(active))
    assert top_rows[1].tolist() == free
    assert top_rows[0].tolist()[:-2] == [row for row in free if row not in (barred, last_row)]
    assert np.isneginf(top_scores[0]).sum() == 2
    assert np.isfinite(scores).all()


def test_the_same_model_gives_the_same_bytes(
    model: Recommender, graph: Path, active: list[int], tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere" / "other_name.onnx"
    again.parent.mkdir()
    torch.rand(7)
    export_onnx(model, again, active=active)
    assert again.read_bytes() == graph.read_bytes()


def test_the_file_says_nothing_of_where_it_was_made(graph: Path) -> None:
    content = graph.read_bytes()
    assert b".py" not in content
    assert b"recsys_core" not in content
    onnx.checker.check_model(onnx.load(graph), full_check=True)


def test_an_answer_to_an_empty_history_takes_no_bytes(tmp_path: Path) -> None:
    """It is counted down when the graph is loaded, not stored as a number for each item."""
    shape = ModelConfig(embedding_dim=16, n_layers=1, n_heads=2, ffn_dim=8, positions="rotary")
    export_onnx(Recommender(700, shape), tmp_path / "g.onnx", active=range(1, 701))
    sizes = {tuple(tensor.dims) for tensor in onnx.load(tmp_path / "g.onnx").graph.initializer}
    assert [size for size in sizes if 700 in size] == [(700, 16)]
    np.testing.assert_array_equal(run(tmp_path / "g.onnx", NONE, k=700)[0], [np.arange(1, 701)])


def test_the_item_table_is_stored_once(graph: Path, active: list[int]) -> None:
    sizes = [np.prod(tensor.dims) for tensor in onnx.load(graph).graph.initializer]
    assert sum(size == len(active) * 32 for size in sizes) == 1


def test_the_sizes_stay_open(graph: Path) -> None:
    proto = onnx.load(graph).graph
    sizes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*proto.input, *proto.output]
    }
    assert sizes == {
        "history": ["batch", "length"],
        "exclude": ["batch", "n_exclude"],
        "k": [1],
        "top_rows": ["batch", "k"],
        "top_scores": ["batch", "k"],
        "scores": ["batch", 52],
    }


@pytest.mark.parametrize("bad", [[], [0, 1], [1, 1], [61]])
def test_impossible_active_items_are_refused(
    model: Recommender, tmp_path: Path, bad: list[int]
) -> None:
    with pytest.raises(ValueError, match="distinct item_idx between 1 and 60"):
        export_onnx(model, tmp_path / "x", active=bad)
