"""What every recommender must obey, whatever its weights."""

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.models.fusion import Content
from recsys_core.models.recommender import ModelConfig, Recommender

N_ITEMS = 20
CONFIG = ModelConfig(
    embedding_dim=16, n_layers=2, n_heads=2, ffn_dim=12, max_length=10, dropout=0.5
)

ROTARY = CONFIG.model_copy(update={"positions": "rotary"})
REPEATED = CONFIG.model_copy(update={"n_layers": 1, "n_repeats": 3})
GRU = CONFIG.model_copy(update={"encoder": "gru"})
POOLING = CONFIG.model_copy(update={"encoder": "pooling"})
KINDS = [CONFIG, ROTARY, REPEATED, GRU, POOLING]


def _model(content: Content | None = None, config: ModelConfig = CONFIG) -> Recommender:
    torch.manual_seed(0)
    model = Recommender(N_ITEMS, config, content)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _encode(model: Recommender, *histories: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.encode(torch.tensor(histories), model.item_vectors())


HISTORIES = st.lists(st.integers(1, N_ITEMS), min_size=2, max_size=10)


@settings(max_examples=25, deadline=None)
@given(HISTORIES, st.data(), st.sampled_from(KINDS))
def test_a_state_depends_on_the_past_and_present_alone(
    history: list[int], data: st.DataObject, config: ModelConfig
) -> None:
    model = _model(config=config)
    place = data.draw(st.integers(1, len(history) - 1))
    other = data.draw(st.integers(1, N_ITEMS).filter(lambda item: item != history[place]))
    changed = [*history[:place], other, *history[place + 1 :]]
    before, after = _encode(model, history)[0], _encode(model, changed)[0]
    torch.testing.assert_close(after[:place], before[:place])
    assert not torch.allclose(after[place], before[place], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(HISTORIES, st.integers(0, 10), st.sampled_from(KINDS))
def test_padding_has_no_effect(history: list[int], padding: int, config: ModelConfig) -> None:
    model = _model(config=config)
    padded = (history + [0] * padding)[: CONFIG.max_length]
    states = _encode(model, padded)[0, : len(history)]
    torch.testing.assert_close(states, _encode(model, history)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", KINDS)
def test_the_order_of_the_past_matters(config: ModelConfig) -> None:
    model = _model(config=config)
    assert not torch.allclose(_encode(model, [1, 2, 3])[0, -1], _encode(model, [2, 1, 3])[0, -1])


def test_a_pass_more_is_depth_without_weights() -> None:
    once = _model(config=CONFIG.model_copy(update={"n_layers": 1}))
    thrice = Recommender(N_ITEMS, REPEATED).eval()
    thrice.load_state_dict(once.state_dict())
    block, vectors = once.layers[0], once.item_vectors()
    with torch.inference_mode():
        x = vectors[torch.tensor([[1, 2, 3]])] * 4.0
        assert once.position_embedding is not None
        x = x + once.position_embedding[:3]
        expected = once.final_norm(block(block(block(x))))
    torch.testing.assert_close(_encode(thrice, [1, 2, 3]), expected)
    assert not torch.allclose(_encode(once, [1, 2, 3]), expected, atol=1e-3)


def test_batches_do_not_mix() -> None:
    model = _model()
    together = _encode(model, [1, 2, 3], [4, 5, 6])
    torch.testing.assert_close(together[1:], _encode(model, [4, 5, 6]))


def test_an_untouched_item_has_a_vector_of_its_content() -> None:
    content = torch.zeros(N_ITEMS + 1, 3)
    content[7] = torch.tensor([0.0, 1.0, 0.0])
    model = _model({"text": content})
    model.zero_id_embeddings(np.arange(N_ITEMS + 1))
    vectors = model.item_vectors()
    assert model.content is not None
    weight = cast(torch.Tensor, model.content.projections[0].weight)
    torch.testing.assert_close(vectors[7], weight[:, 1])
    assert vectors[7].norm() > 0
    assert not vectors[0].any()


def test_an_item_that_was_forgotten_has_no_id() -> None:
    model = _model({"text": torch.rand(N_ITEMS + 1, 3)})
    model.zero_id_embeddings(np.array([2, 5]))
    assert model.has_id_embedding(np.array([1, 2, 5, 6])).tolist() == [True, False, False, True]
    assert model.has_id_embedding(np.array([], np.int32)).tolist() == []


def test_the_id_moves_an_item_no_farther_than_its_bound() -> None:
    content = torch.rand(N_ITEMS + 1, 3)
    config = CONFIG.model_copy(update={"id_bound": 0.5})
    model = _model({"text": content}, config)
    assert model.content is not None
    moved = (model.item_vectors() - model.content())[1:].norm(dim=1)
    longest = model.id_embedding[1:].norm(dim=1)
    assert longest.max() > 0.5
    torch.testing.assert_close(moved, longest.clamp(max=0.5))


def test_ids_are_dropped_in_training_only() -> None:
    config = CONFIG.model_copy(update={"id_dropout": 0.5, "dropout": 0.0})
    model = _model({"text": torch.rand(N_ITEMS + 1, 3)}, config)
    assert model.content is not None
    whole = model.item_vectors()[1:]
    alone = model.content()[1:]
    dropped = model.train().item_vectors()[1:]
    is_alone = torch.isclose(dropped, alone).all(dim=1)
    torch.testing.assert_close(dropped[~is_alone], whole[~is_alone])
    assert 0 < int(is_alone.sum()) < N_ITEMS


def test_some_items_are_the_rows_of_all() -> None:
    model = _model({"text": torch.rand(N_ITEMS + 1, 3), "image": torch.rand(N_ITEMS + 1, 2)})
    items = torch.tensor([0, 3, 7])
    torch.testing.assert_close(model.item_vectors(items), model.item_vectors()[items])


def test_the_padding_row_is_zero_and_never_learns() -> None:
    model = _model()
    model.item_vectors().square().sum().backward()
    assert model.id_embedding.grad is not None
    assert not model.item_vectors()[0].any()
    assert not model.id_embedding.grad[0].any()
    assert model.id_embedding.grad[1:].any(dim=1).all()


def test_dropout_acts_in_training_only() -> None:
    model = _model()
    torch.testing.assert_close(_encode(model, [1, 2]), _encode(model, [1, 2]), atol=0, rtol=0)
    model.train()
    assert not torch.equal(_encode(model, [1, 2]), _encode(model, [1, 2]))


def test_mistakes_are_refused_with_a_sentence() -> None:
    odd = CONFIG.model_copy(update={"n_heads": 3})
    with pytest.raises(ValueError, match="16 heads of embedding_dim=16 have an odd width"):
        Recommender(N_ITEMS, ROTARY.model_copy(update={"n_heads": 16}), None)
    with pytest.raises(ValueError, match="n_heads=3 must divide embedding_dim=16"):
        Recommender(N_ITEMS, odd, None)
    with pytest.raises(ValueError, match=r"time_gaps need attention .* encoder is 'gru'"):
        Recommender(N_ITEMS, GRU.model_copy(update={"time_gaps": True}), None)
    with pytest.raises(ValueError, match="content 'text' has 20 rows, expected n_items"):
        Recommender(N_ITEMS, CONFIG, {"text": torch.zeros(20, 3)})
    with pytest.raises(ValueError, match="Histories of 11 events exceed max_length=10"):
        _encode(_model(), [1] * 11)


def test_a_longer_catalogue_goes_on_from_the_shorter_one() -> None:
    content = torch.rand(N_ITEMS + 4, 3)
    parent = _model({"text": content[: N_ITEMS + 1]})
    torch.manual_seed(9)
    model = Recommender(N_ITEMS + 3, CONFIG, {"text": content}).eval()
    model.warm_start_from(parent)
    torch.testing.assert_close(_encode(model, [1, 2, 3]), _encode(parent, [1, 2, 3]))
    assert model.content is not None
    torch.testing.assert_close(model.item_vectors()[-3:], model.content()[-3:])


def test_a_parent_that_does_not_fit_is_refused() -> None:
    model = _model({"text": torch.rand(N_ITEMS + 1, 3)})
    with pytest.raises(ValueError, match="does not fit"):
        model.warm_start_from(_model())
    with pytest.raises(ValueError, match=r"other shapes of .*ffn"):
        _model().warm_start_from(_model(config=CONFIG.model_copy(update={"ffn_dim": 16})))
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="it knows 25 items, not 20"):
        _model().warm_start_from(Recommender(25, CONFIG, None))


def test_what_was_learned_on_other_items_is_transferred_by_content() -> None:
    source = _model({"text": torch.eye(N_ITEMS + 1, 30)})
    torch.manual_seed(9)
    order = [0, 7, 5, 6, 20]
    model = Recommender(4, CONFIG, {"text": torch.eye(N_ITEMS + 1, 30)[order]}).eval()
    model.initialise_from_other_catalogue(source)
    assert source.content is not None
    placed = source.content()
    torch.testing.assert_close(model.item_vectors()[1:], placed[order[1:]])
    state = model.encode(torch.tensor([[1, 2]]), model.item_vectors())
    torch.testing.assert_close(state, source.encode(torch.tensor([[7, 5]]), placed))


def test_a_source_of_transfer_that_does_not_fit_is_refused() -> None:
    model = _model({"text": torch.rand(N_ITEMS + 1, 3)})
    with pytest.raises(ValueError, match="no content, and its ids"):
        model.initialise_from_other_catalogue(_model())
    with pytest.raises(ValueError, match=r"content \['image'\], not \['text'\]"):
        model.initialise_from_other_catalogue(_model({"image": torch.rand(N_ITEMS + 1, 3)}))
    with pytest.raises(ValueError, match=r"other shapes of content\.projections\.0\.weight"):
        model.initialise_from_other_catalogue(_model({"text": torch.rand(N_ITEMS + 1, 4)}))
