from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from recsys_core.compression.short_names import shorten
from recsys_core.serving.scorer import open_session


def answer(graph: Path) -> list[np.ndarray]:
    inputs = {
        "history": np.array([[3, 1, 4, 0], [2, 0, 0, 0], [0, 0, 0, 0]]),
        "exclude": np.array([[1], [0], [7]]),
        "k": np.array([20]),
    }
    return open_session(graph).run(["top_rows", "top_scores", "scores"], inputs)


def shortened(graph: Path) -> ModelProto:
    proto = onnx.load(graph)
    shorten(proto)
    return proto


def test_the_graph_answers_the_same_to_the_bit_in_fewer_bytes(graph: Path, tmp_path: Path) -> None:
    proto = shortened(graph)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, tmp_path / "short.onnx")
    for found, expected in zip(answer(tmp_path / "short.onnx"), answer(graph), strict=True):
        np.testing.assert_array_equal(found, expected)
    constants = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    before, after = (path.stat().st_size - constants for path in (graph, tmp_path / "short.onnx"))
    assert after < 0.5 * before


def test_inputs_and_outputs_keep_their_names_and_no_other_value_does(graph: Path) -> None:
    proto, before = shortened(graph).graph, onnx.load(graph).graph
    assert proto.input == before.input
    assert proto.output == before.output
    kept = {value.name for value in [*proto.input, *proto.output]}
    values = {name for node in proto.node for name in [*node.input, *node.output]}
    assert max(len(name) for name in values - kept) == 2
    assert not [node.name for node in proto.node if node.name]


def test_attributes_with_another_value_than_the_default_stay(graph: Path) -> None:
    proto = shortened(graph).graph
    (layer_norm, *_) = (node for node in proto.node if node.op_type == "LayerNormalization")
    assert not layer_norm.attribute  # eps is 1e-5, along the last axis
    (top_k,) = (node for node in proto.node if node.op_type == "TopK")
    assert [(item.name, item.i) for item in top_k.attribute] == [("axis", 1)]
