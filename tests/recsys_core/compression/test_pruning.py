from pathlib import Path
from typing import cast

import pytest
import torch

from recsys_core.compression.pruning import ffn_importance, prune_ffn
from recsys_core.models.block import Block, SwiGLU
from recsys_core.models.checkpoint import load_model, save_model
from recsys_core.models.recommender import Recommender

HISTORIES = torch.tensor([[4, 9, 2, 0], [7, 0, 0, 0], [1, 2, 3, 4]])


def states(model: Recommender) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(HISTORIES, model.item_vectors())


def ffn_of(model: Recommender, block: int) -> SwiGLU:
    return cast(Block, model.blocks[block]).ffn


def with_idle_channels(model: Recommender, idle: torch.Tensor) -> Recommender:
    copy = prune_ffn(model, model.config.ffn_dim, ffn_importance(model, HISTORIES))
    for block in range(2):
        ffn_of(copy, block).down.weight.data[:, idle] = 0
    return copy


def test_channels_that_contribute_nothing_can_go(model: Recommender) -> None:
    model = with_idle_channels(model, torch.arange(0, 24, 3))
    importance = ffn_importance(model, HISTORIES)
    assert [(scores == 0).nonzero().ravel().tolist() for scores in importance] == [
        list(range(0, 24, 3))
    ] * 2
    pruned = prune_ffn(model, 16, importance)
    torch.testing.assert_close(states(pruned), states(model))


def test_importance_is_the_mean_length_of_what_a_channel_adds(model: Recommender) -> None:
    one_event = HISTORIES[1:2]
    hidden: list[torch.Tensor] = []
    hook = ffn_of(model, 0).register_forward_hook(lambda _, args, __: hidden.append(args[0]))
    expected = ffn_importance(model, one_event)[0]
    hook.remove()
    ffn = ffn_of(model, 0)
    with torch.no_grad():
        activation = torch.nn.functional.silu(ffn.gate(hidden[0])) * ffn.up(hidden[0])
    added = activation[0, 0] * ffn.down.weight  # [dim, channels], of the only event
    torch.testing.assert_close(added.detach().norm(dim=0), expected)


def test_padding_does_not_count(model: Recommender) -> None:
    for few, many in zip(
        ffn_importance(model, HISTORIES[1:2, :1]),
        ffn_importance(model, HISTORIES[1:2]),
        strict=True,
    ):
        torch.testing.assert_close(few, many)


def test_keeping_all_channels_is_the_identity(model: Recommender) -> None:
    same = prune_ffn(model, 24, ffn_importance(model, HISTORIES))
    assert torch.equal(states(same), states(model))
    assert same.content is not None
    assert same.content is not model.content


def test_the_least_important_channels_go_and_the_rest_keeps_its_order(model: Recommender) -> None:
    importance = [torch.arange(24.0), -torch.arange(24.0)]
    pruned = prune_ffn(model, 4, importance)
    for block, kept in ((0, slice(20, 24)), (1, slice(0, 4))):
        ffn, old = ffn_of(pruned, block), ffn_of(model, block)
        assert torch.equal(ffn.gate.weight, old.gate.weight[kept])
        assert torch.equal(ffn.up.weight, old.up.weight[kept])
        assert torch.equal(ffn.down.weight, old.down.weight[:, kept])


def test_a_pruned_model_is_smaller_and_survives_the_disk(
    model: Recommender, tmp_path: Path
) -> None:
    pruned = prune_ffn(model, 8, ffn_importance(model, HISTORIES))
    assert pruned.config.ffn_dim == 8
    assert sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in pruned.parameters()
    ) == 2 * 3 * 32 * (24 - 8)
    save_model(tmp_path, pruned)
    assert torch.equal(states(load_model(tmp_path)), states(pruned))


def test_the_pruned_model_shares_no_memory_with_the_old_one(model: Recommender) -> None:
    pruned = prune_ffn(model, 24, ffn_importance(model, HISTORIES))
    before = states(model)
    for parameter in pruned.parameters():
        parameter.data.zero_()
    assert torch.equal(states(model), before)


def test_impossible_requests_are_refused(model: Recommender) -> None:
    importance = ffn_importance(model, HISTORIES)
    with pytest.raises(ValueError, match="keep=25 exceeds the model's ffn_dim=24"):
        prune_ffn(model, 25, importance)
    with pytest.raises(ValueError, match="ffn_dim"):
        prune_ffn(model, 0, importance)
    with pytest.raises(ValueError, match="compute it on this very model"):
        prune_ffn(model, 8, importance[:1])
    with pytest.raises(ValueError, match="finite values"):
        prune_ffn(model, 8, [importance[0], importance[1] * torch.nan])
    with pytest.raises(ValueError, match="hold no event"):
        ffn_importance(model, torch.zeros(2, 3, dtype=torch.int64))
