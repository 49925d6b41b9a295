import numpy as np
import torch

from recsys_core.models.ranker import model_ranker, pad_histories
from recsys_core.models.recommender import ModelConfig, Recommender

CONFIG = ModelConfig(embedding_dim=8, n_layers=1, n_heads=1, ffn_dim=4, max_length=4)


def _history(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


def _model() -> Recommender:
    torch.manual_seed(1)
    model = Recommender(9, CONFIG, None).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def test_histories_keep_their_newest_events_and_are_padded_behind() -> None:
    padded, lengths = pad_histories([_history(1, 2, 3), _history(), _history(4, 5, 6, 7, 8)], 4)
    assert padded.tolist() == [[1, 2, 3, 0], [0, 0, 0, 0], [5, 6, 7, 8]]
    assert lengths.tolist() == [3, 0, 4]
    assert pad_histories([_history()], 4)[0].tolist() == [[0]]
    assert pad_histories([], 4)[0].shape == (0, 1)


def test_scores_are_those_of_each_history_alone() -> None:
    model = _model()
    rank = model_ranker(model)
    histories = [_history(1), _history(3, 2, 9), _history(9, 9, 1, 2, 3, 4)]
    scores = rank(histories)
    assert scores.shape == (3, 10)
    assert scores.dtype == np.float32
    with torch.inference_mode():
        vectors = model.item_vectors()
        for history, row in zip(histories, scores, strict=True):
            newest = torch.from_numpy(history[-4:].astype(np.int64))[None]
            expected = model.encode(newest, vectors)[0, -1] @ vectors.T
            np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_many_histories_are_scored_in_parts() -> None:
    model, random = _model(), np.random.default_rng(1)
    lengths = random.integers(0, 6, 5000)  # more than fit a part
    histories = [random.integers(1, 10, length).astype(np.int32) for length in lengths]
    rank = model_ranker(model)
    scores = rank(histories)
    for at in (0, 2047, 2048, 4999):
        np.testing.assert_allclose(scores[at], rank(histories[at : at + 1])[0], rtol=1e-4)


def test_what_is_added_to_scores_counts_after_a_history_only() -> None:
    model, cold = _model(), np.arange(10, dtype=np.float32)
    histories = [_history(2, 5), _history()]
    without = model_ranker(model, cold)(histories)
    model.item_bias = torch.linspace(0, 9, 10)
    np.testing.assert_allclose(
        model_ranker(model, cold)(histories) - without, [np.arange(10), np.zeros(10)], atol=1e-5
    )


def test_an_empty_history_gets_the_cold_start_scores() -> None:
    model = _model()
    cold = np.arange(10, dtype=np.float32)
    with_cold = model_ranker(model, cold)([_history(2), _history()])
    without = model_ranker(model)([_history(2), _history()])
    np.testing.assert_array_equal(with_cold[1], cold)
    np.testing.assert_array_equal(without[1], np.zeros(10))
    np.testing.assert_array_equal(with_cold[0], without[0])
    assert model_ranker(model)([]).shape == (0, 10)
