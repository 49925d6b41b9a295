from pathlib import Path

import pytest
import torch

from recsys_core.artifacts import read_json, write_json
from recsys_core.models.checkpoint import SHAPE, WEIGHTS, load_model, save_model
from recsys_core.models.fusion import Content
from recsys_core.models.recommender import ModelConfig, Recommender

CONFIG = ModelConfig(embedding_dim=8, n_layers=1, n_heads=1, ffn_dim=4, max_length=6)


@pytest.mark.parametrize(
    "content",
    [None, {"text": torch.eye(8, 3), "image": torch.rand(8, 4)}],
    ids=["ids only", "content"],
)
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, content: Content | None) -> None:
    torch.manual_seed(0)
    model = Recommender(7, CONFIG, content)
    save_model(tmp_path, model)
    first = (tmp_path / WEIGHTS).read_bytes()
    loaded = load_model(tmp_path)
    assert not loaded.training
    assert loaded.config == CONFIG
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    save_model(tmp_path, loaded)
    assert (tmp_path / WEIGHTS).read_bytes() == first
    history = torch.tensor([[1, 7, 3]])
    torch.testing.assert_close(
        model.eval().encode(history, model.item_vectors()),
        loaded.encode(history, loaded.item_vectors()),
        atol=0,
        rtol=0,
    )


def test_what_is_added_to_scores_comes_back(tmp_path: Path) -> None:
    model = Recommender(7, CONFIG, None)
    save_model(tmp_path, model)
    without = (tmp_path / WEIGHTS).stat().st_size
    model.item_bias = torch.arange(8, dtype=torch.float32)
    save_model(tmp_path, model)
    loaded = load_model(tmp_path)
    assert loaded.item_bias is not None
    assert torch.equal(loaded.item_bias, model.item_bias)
    assert (tmp_path / WEIGHTS).stat().st_size > without
    later = Recommender(7, CONFIG, None)
    later.warm_start_from(loaded)
    assert later.item_bias is None, "each night fits its own"


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, Recommender(7, CONFIG, None))
    shape = read_json(tmp_path / SHAPE)
    write_json(tmp_path / SHAPE, shape | {"n_items": 8})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_model(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path)
