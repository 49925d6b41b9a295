from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from recsys_core.compression.export import export_onnx
from recsys_core.compression.parity import graph_parity
from recsys_core.compression.quantization import quantize
from recsys_core.models.recommender import Recommender
from recsys_core.serving.scorer import open_session, pad_rows


def constants(graph: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(graph).graph.initializer}


@pytest.mark.parametrize("dim", [16, 48, 128])
def test_any_multiple_of_16_keeps_the_ranking(
    make_model: Callable[..., Recommender],
    active: list[int],
    histories: list[np.ndarray],
    tmp_path: Path,
    dim: int,
) -> None:
    model = make_model(dim, n_layers=1)
    export_onnx(model, tmp_path / "a.onnx", active=active)
    quantize(tmp_path / "a.onnx", tmp_path / "b.onnx")
    figures = graph_parity(
        model, tmp_path / "b.onnx", active=active, histories=histories, exclude_seen=False
    )
    assert figures.overlap_at_10 > 0.95
    assert figures.correlation > 0.999
    assert 1e-6 < figures.max_abs_difference


def test_no_matrix_stays_fp32_and_the_table_is_stored_once(
    graph: Path, active: list[int], tmp_path: Path
) -> None:
    quantize(graph, tmp_path / "int8.onnx")
    values = constants(tmp_path / "int8.onnx").values()
    n_parameters = len(active) * 32
    assert [value.dtype for value in values if value.size == n_parameters] == [np.uint8]
    assert max(value.size for value in values if value.dtype == np.float32) <= len(active)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * graph.stat().st_size


def test_the_table_is_rounded_to_the_nearest_of_255_steps(graph: Path, tmp_path: Path) -> None:
    quantize(graph, tmp_path / "int8.onnx")
    table = constants(graph)["item_table"]
    after = list(constants(tmp_path / "int8.onnx").values())
    (data,) = (value for value in after if value.dtype == np.uint8)
    (scales,) = (value.astype(np.float32) for value in after if value.shape == (len(table), 1))
    restored = (data[:, 0].astype(np.float32) - 128) * scales
    assert (np.abs(restored - table) <= scales / 2 * 1.001).all()
    largest = np.abs(table).max(axis=1)
    np.testing.assert_allclose(scales[:, 0] * 127, largest, rtol=2**-10)
    assert (scales[:, 0] * 127 >= largest * (1 - 1e-6)).all()


def test_quantizing_is_reproducible(graph: Path, tmp_path: Path) -> None:
    quantize(graph, tmp_path / "one.onnx")
    quantize(graph, tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_scores_do_not_depend_on_the_rest_of_the_batch(graph: Path, tmp_path: Path) -> None:
    quantize(graph, tmp_path / "int8.onnx")
    session = open_session(tmp_path / "int8.onnx")

    def scores(rows: list[np.ndarray]) -> np.ndarray:
        none = np.zeros((len(rows), 1), dtype=np.int64)
        inputs = {"history": pad_rows(rows), "exclude": none, "k": np.array([1])}
        return session.run(["scores"], inputs)[0]

    short, long = np.array([3, 5]), np.arange(1, 13)
    np.testing.assert_allclose(scores([short, long, long])[0], scores([short])[0], atol=1e-5)


def test_cold_start_scores_stay_exact(graph: Path, active: list[int], tmp_path: Path) -> None:
    quantize(graph, tmp_path / "int8.onnx")
    none = np.zeros((1, 1), dtype=np.int64)
    inputs = {"history": none, "exclude": none, "k": np.array([1])}
    scores = open_session(tmp_path / "int8.onnx").run(["scores"], inputs)[0]
    np.testing.assert_array_equal(scores[0], np.arange(len(active), 0, -1))


def test_other_graphs_are_refused(
    make_model: Callable[..., Recommender], graph: Path, active: list[int], tmp_path: Path
) -> None:
    quantize(graph, tmp_path / "int8.onnx")
    with pytest.raises(ValueError, match="expected a graph from export_onnx"):
        quantize(tmp_path / "int8.onnx", tmp_path / "again.onnx")
    model = make_model(dim=24, n_layers=1)
    export_onnx(model, tmp_path / "24.onnx", active=active)
    with pytest.raises(ValueError, match="multiple of 16"):
        quantize(tmp_path / "24.onnx", tmp_path / "24int8.onnx")
    assert not (tmp_path / "24int8.onnx").exists()
