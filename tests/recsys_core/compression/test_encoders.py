"""Every kind of network is exported, rounded and pruned like the others."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from recsys_core.compression.export import export_onnx
from recsys_core.compression.parity import graph_parity
from recsys_core.compression.pruning import ffn_importance, prune_ffn
from recsys_core.compression.quantization import quantize
from recsys_core.models.recommender import ModelConfig, Recommender
from tests.recsys_core.compression.conftest import N_ITEMS

KINDS: dict[str, dict[str, Any]] = {
    "repeated": {"n_layers": 1, "n_repeats": 3, "positions": "rotary"},
    "gru": {"encoder": "gru", "n_layers": 2, "n_repeats": 2},
    "pooling": {"encoder": "pooling", "n_layers": 1, "n_heads": 4},
    "deep pooling": {"encoder": "pooling", "n_layers": 2, "n_repeats": 2},
}


def make_model(**sizes: Any) -> Recommender:
    """A random model whose scores are spread as widely as a trained one's."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = ModelConfig(embedding_dim=32, ffn_dim=24, max_length=12, dropout=0.3)
        model = Recommender(N_ITEMS, config.model_copy(update=sizes))
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.1
    return model.eval()


def export(model: Recommender, folder: Path, active: list[int]) -> tuple[Path, Path]:
    """The exact graph and its int8 version."""
    exact, rounded = folder / "exact.onnx", folder / "rounded.onnx"
    export_onnx(model, exact, active=active)
    quantize(exact, rounded)
    return exact, rounded


def matrix_bytes(graph: Path) -> int:
    """Bytes of everything with more than one axis; the rest is small."""
    tensors = onnx.load(graph).graph.initializer
    return sum(numpy_helper.to_array(t).nbytes for t in tensors if len(t.dims) > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_is_exported_and_rounded(
    kind: str, active: list[int], histories: list[np.ndarray], tmp_path: Path
) -> None:
    model = make_model(**KINDS[kind])
    exact, rounded = export(model, tmp_path, active)
    facts: dict[str, Any] = {"active": active, "histories": histories, "exclude_seen": False}
    assert graph_parity(model, exact, **facts).max_abs_difference < 1e-4
    figures = graph_parity(model, rounded, **facts)
    assert figures.overlap_at_10 > 0.9
    assert figures.correlation > 0.999
    assert 1e-6 < figures.max_abs_difference
    tensors = onnx.load(rounded).graph.initializer
    floats = [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT]
    matrices = [t.name for t in floats if sum(size > 1 for size in t.dims) > 1]
    assert matrices == []


def test_a_block_that_runs_again_costs_no_bytes(active: list[int], tmp_path: Path) -> None:
    """At width 64 the exporter transposes weights for each use, and would store each result."""
    sizes: list[list[int]] = []
    for repeats in (1, 3):
        model = make_model(embedding_dim=64, n_layers=1, n_repeats=repeats)
        folder = tmp_path / str(repeats)
        folder.mkdir()
        graphs = export(model, folder, active)
        n_weights = sum(parameter.numel() for parameter in model.parameters())
        sizes.append([n_weights, *map(matrix_bytes, graphs)])
    assert sizes[0] == sizes[1]
    once, thrice = (tmp_path / repeats / "rounded.onnx" for repeats in ("1", "3"))
    assert once.stat().st_size < thrice.stat().st_size, "its nodes are in the graph again"


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_is_pruned(kind: str) -> None:
    model = make_model(**KINDS[kind])
    histories = torch.tensor([[4, 9, 2, 0], [7, 0, 0, 0], [1, 2, 3, 4]])
    with torch.no_grad():
        for block in model.layers:
            block.ffn.down.weight[:, ::3] = 0.0
        importance = ffn_importance(model, histories)
        assert len(importance) == model.config.n_layers
        pruned = prune_ffn(model, 16, importance)
        found = pruned.encode(histories, pruned.item_vectors())
        expected = model.encode(histories, model.item_vectors())
    torch.testing.assert_close(found, expected)


def test_importance_of_a_repeated_block_is_the_mean_over_its_runs() -> None:
    model = make_model(n_layers=1, n_repeats=2)
    histories = torch.tensor([[4, 9, 2], [1, 2, 3]])
    ffn, seen = model.layers[0].ffn, []
    hook = ffn.down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    (importance,) = ffn_importance(model, histories)
    hook.remove()
    assert len(seen) == 2
    activation = torch.cat(seen).abs().mean(dim=(0, 1))
    torch.testing.assert_close(importance, activation * ffn.down.weight.norm(dim=0).detach())
