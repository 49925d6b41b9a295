"""Several recommenders as one: the mean of their logits, exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.models.checkpoint import save_model
from recsys_core.models.ensemble import (
    Ensemble,
    load_recommender,
    member_folder,
    save_ensemble_bias,
)
from recsys_core.models.ranker import model_ranker
from recsys_core.models.recommender import ModelConfig, Recommender

SIZES = (
    ModelConfig(embedding_dim=16, n_layers=1, n_heads=2, ffn_dim=8, max_length=9),
    ModelConfig(embedding_dim=8, n_layers=2, n_heads=1, ffn_dim=12, max_length=7),
    ModelConfig(
        embedding_dim=12, n_layers=1, n_heads=2, ffn_dim=8, max_length=8, positions="rotary"
    ),
)
HISTORY = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])


def _members(n_items: int = 10) -> list[Recommender]:
    torch.manual_seed(0)
    members = [Recommender(n_items, size, None).eval() for size in SIZES]
    with torch.no_grad():
        for member in members:
            for parameter in member.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return members


@torch.inference_mode()
def _logits(model: Recommender | Ensemble) -> torch.Tensor:
    vectors = model.item_vectors()
    return model.encode(HISTORY, vectors) @ vectors.T


def test_logits_are_the_mean_of_the_members() -> None:
    members = _members()
    ensemble = Ensemble(members)
    mean = torch.stack([_logits(member) for member in members]).mean(dim=0)
    torch.testing.assert_close(_logits(ensemble), mean, atol=1e-5, rtol=1e-5)
    assert (ensemble.width, ensemble.max_length, ensemble.n_items) == (36, 7, 10)


def test_it_adds_its_own_bias_to_scores_not_that_of_its_members() -> None:
    members = _members()
    ensemble = Ensemble(members)
    histories = [np.array([3, 1, 4], np.int32)]
    without = model_ranker(ensemble)(histories)
    members[0].item_bias = torch.full((11,), 6.0)
    np.testing.assert_array_equal(model_ranker(ensemble)(histories), without)
    ensemble.item_bias = torch.arange(11, dtype=torch.float32)
    np.testing.assert_allclose(
        model_ranker(ensemble)(histories), without + np.arange(11), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(model_ranker(ensemble, with_bias=False)(histories), without)


def test_it_comes_back_from_a_folder(tmp_path: Path) -> None:
    members = _members()
    for number, member in enumerate(members):
        member_folder(tmp_path, number).mkdir(exist_ok=True)
        save_model(member_folder(tmp_path, number), member)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, Ensemble)
    assert not loaded.training
    assert loaded.item_bias is None
    loaded.item_bias = torch.arange(11, dtype=torch.float32)
    save_ensemble_bias(tmp_path, loaded)
    bias = load_recommender(tmp_path).item_bias
    assert bias is not None
    assert torch.equal(bias, loaded.item_bias)
    torch.testing.assert_close(_logits(loaded), _logits(Ensemble(members)))


def test_a_single_network_is_itself(tmp_path: Path) -> None:
    save_model(tmp_path, _members()[0])
    assert isinstance(load_recommender(tmp_path), Recommender)


def test_members_over_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same items, found \[10, 11\]"):
        Ensemble([_members()[0], _members(11)[0]])
