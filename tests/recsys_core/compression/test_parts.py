import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

from recsys_core.compression.export import export_onnx
from recsys_core.compression.parts import bytes_by_part
from recsys_core.compression.quantization import quantize
from recsys_core.models.recommender import Encoder, ModelConfig, Recommender
from recsys_core.serving.folder import served_bytes, write_item_ids
from recsys_core.serving.scorer import FORMAT


@pytest.mark.parametrize(("precision", "width"), [("int8", 1), ("fp32", 4)])
def test_every_byte_has_a_part(
    model: Recommender,
    graph: Path,
    active: list[int],
    tmp_path: Path,
    precision: str,
    width: int,
) -> None:
    if precision == "int8":
        quantize(graph, tmp_path / "model.onnx")
    else:
        (tmp_path / "model.onnx").write_bytes(graph.read_bytes())
    write_item_ids(tmp_path, ["1"])
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT}))

    parts = bytes_by_part(tmp_path)

    assert sum(parts.values()) == served_bytes(tmp_path)
    assert parts["item table"] == width * 32 * len(active)
    assert parts["linear layers"] == width * 2 * (6 * 32 * 32 + 3 * 32 * 24)
    assert parts["norms and biases"] == 4 * (2 * 10 * 32 + 2 * 32)
    assert parts["recency prior"] == 0
    learned = model.config.positions == "learned"
    assert parts["positions"] == (width * 12 * 32 if learned else 0)
    n_scales = len(active) + 2 * (7 * 32 + 2 * 24) + (12 if learned else 0)
    assert parts["scales"] == (2 * n_scales if precision == "int8" else 0)
    assert parts["configuration"] == len('{"format": 2}')
    assert 0 < parts["structure"] < 20_000


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("encoder", ["attention", "gru", "pooling"])
def test_the_weights_of_every_encoder_have_a_part(
    encoder: Encoder, precision: str, tmp_path: Path
) -> None:
    """Only what is left over counts as the graph's structure: nodes and names."""
    config = ModelConfig(encoder=encoder, embedding_dim=64, n_layers=2, ffn_dim=64, max_length=12)
    model = Recommender(60, config).eval()
    graph = tmp_path / "model.onnx"
    export_onnx(model, graph, active=range(1, 61))
    width = 4
    if precision == "int8":
        quantize(graph, graph)
        width = 1
    write_item_ids(tmp_path, ["1"])
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT}))

    parts = bytes_by_part(tmp_path)

    mixing = {"attention": 6, "gru": 8, "pooling": 3}[encoder]
    assert parts["linear layers"] == width * 2 * (mixing * 64 * 64 + 3 * 64 * 64)
    if encoder == "gru":  # four norms in two blocks, the last one, and six biases a cell
        assert parts["norms and biases"] >= 4 * 2 * 6 * 64
    assert parts["structure"] < 20_000
    assert sum(parts.values()) == served_bytes(tmp_path)


@pytest.mark.parametrize(("precision", "width"), [("int8", 2), ("fp32", 4)])
def test_the_recency_prior_is_a_part_of_its_own(
    model: Recommender, active: list[int], tmp_path: Path, precision: str, width: int
) -> None:
    model = copy.deepcopy(model)
    model.item_bias = torch.linspace(-70, 0, model.n_items + 1)
    export_onnx(model, tmp_path / "exact.onnx", active=active)
    if precision == "int8":
        quantize(tmp_path / "exact.onnx", tmp_path / "model.onnx")
    else:
        (tmp_path / "exact.onnx").rename(tmp_path / "model.onnx")
    write_item_ids(tmp_path, ["1"])
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT}))

    parts = bytes_by_part(tmp_path)

    assert parts["recency prior"] == width * len(active)
    assert parts["norms and biases"] == 4 * (2 * 10 * 32 + 2 * 32)
    assert sum(parts.values()) == served_bytes(tmp_path)


def test_the_recency_prior_is_rounded_to_16_bits(
    model: Recommender, graph: Path, active: list[int], tmp_path: Path
) -> None:
    with_prior = copy.deepcopy(model)
    with_prior.item_bias = torch.linspace(-70, 0, model.n_items + 1)
    export_onnx(with_prior, tmp_path / "exact.onnx", active=active)
    history = {
        "history": np.array([[1, 2]]),
        "exclude": np.zeros((1, 1), np.int64),
        "k": np.ones(1, np.int64),
    }

    def scores(exact: Path) -> np.ndarray:
        quantize(exact, tmp_path / "model.onnx")
        return np.asarray(InferenceSession(tmp_path / "model.onnx").run(["scores"], history)[0])

    added = scores(tmp_path / "exact.onnx") - scores(graph)
    expected = with_prior.item_bias[active].numpy()
    np.testing.assert_allclose(added[0], expected, atol=1 / 32 + 1e-4)
    assert np.abs(added[0] - expected).max() > 1e-3
