from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.compression.export import export_onnx
from recsys_core.models.recommender import ModelConfig, Positions, Recommender

N_ITEMS = 60
ACTIVE = [item_idx for item_idx in range(N_ITEMS, 0, -1) if item_idx % 7]


def _make_model(
    dim: int = 32, n_layers: int = 2, *, content: bool = False, positions: Positions = "learned"
) -> Recommender:
    """A random model whose scores are spread as widely as a trained one's."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = ModelConfig(
            embedding_dim=dim,
            n_layers=n_layers,
            n_heads=2,
            ffn_dim=24,
            max_length=12,
            positions=positions,
            dropout=0.3,
        )
        features = {"text": torch.randn(N_ITEMS + 1, 5)} if content else None
        model = Recommender(N_ITEMS, config, features)
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.1
    return model.eval()


@pytest.fixture(scope="session")
def active() -> list[int]:
    """Not all items, and not in the order of the index."""
    return ACTIVE


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Recommender]:
    return _make_model


@pytest.fixture(scope="session", params=["learned", "rotary"])
def model(request: pytest.FixtureRequest) -> Recommender:
    return _make_model(content=True, positions=request.param)


@pytest.fixture(scope="session")
def graph(model: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(model, path, active=ACTIVE)
    return path


@pytest.fixture(scope="session")
def histories() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    lengths = [1, 2, 5, 11, 12, 13, 30] * 6
    return [rng.integers(1, N_ITEMS + 1, length).astype(np.int32) for length in lengths]
