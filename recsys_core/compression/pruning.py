"""Pruning: remove whole SwiGLU channels from the tensors, so that matrices become smaller.

A mask of zeros would change neither size nor speed.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_core.models.block import AnyBlock
from recsys_core.models.recommender import ModelConfig, Recommender


@torch.no_grad()
def ffn_importance(
    model: Recommender, histories: Int[Tensor, "batch length"]
) -> list[Float[Tensor, " channels"]]:
    """Contribution of each SwiGLU channel to its block's output on real histories.

    A channel's importance is its mean absolute activation over the events, multiplied by the norm
    of its column in the down projection: the mean length of the vector that it adds. For a block
    that runs several times it is the mean over its runs.

    Args:
        model: Put into evaluation mode.
        histories: item_idx, oldest event first, right-padded with 0.

    Returns:
        One vector per block, on the CPU.

    Raises:
        ValueError: The histories hold no event.
    """
    events = histories > 0
    if not events.any():
        msg = "The calibration histories hold no event; importance needs at least one."
        raise ValueError(msg)
    blocks = cast(Sequence[AnyBlock], model.blocks)
    activations: dict[nn.Module, Tensor] = {}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean = inputs[0][events].abs().mean(dim=0) / model.config.n_repeats
        activations[layer] = activations[layer] + mean if layer in activations else mean

    hooks = [block.ffn.down.register_forward_pre_hook(record) for block in blocks]
    try:
        model.eval().encode(histories, model.item_vectors())
    finally:
        for hook in hooks:
            hook.remove()
    downs = [block.ffn.down for block in blocks]
    return [(activations[down] * down.weight.square().sum(dim=0).sqrt()).cpu() for down in downs]


@torch.no_grad()
def prune_ffn(
    model: Recommender, keep: int, importance: Sequence[Float[Tensor, " channels"]]
) -> Recommender:
    """A copy with the `keep` most important channels of each block, in their old order.

    Args:
        model: Unchanged.
        keep: Channels to keep in every block; the new `config.ffn_dim`.
        importance: The result of `ffn_importance`.

    Returns:
        A model in evaluation mode on the device of `model`.

    Raises:
        ValueError: `keep` exceeds the number of channels or is below the minimum of a model, or
            `importance` is not one finite value per channel and block.

    Example:
        >>> model = Recommender(5, ModelConfig(embedding_dim=8, ffn_dim=16))
        >>> histories = torch.tensor([[3, 1, 4], [2, 0, 0]])
        >>> prune_ffn(model, 12, ffn_importance(model, histories)).config.ffn_dim
        12
    """
    config = model.config
    if keep > config.ffn_dim:
        msg = f"keep={keep} exceeds the model's ffn_dim={config.ffn_dim}; choose at most that."
        raise ValueError(msg)
    shapes = [tuple(scores.shape) for scores in importance]
    finite = all(bool(torch.isfinite(scores).all()) for scores in importance)
    if shapes != [(config.ffn_dim,)] * config.n_layers or not finite:
        msg = (
            f"importance has shapes {shapes}, expected {config.n_layers} vectors of "
            f"{config.ffn_dim} finite values; compute it on this very model."
        )
        raise ValueError(msg)
    state = model.state_dict()
    for block, scores in enumerate(importance):
        best = torch.argsort(scores, descending=True, stable=True)[:keep]
        channels = best.sort().values.to(model.id_embedding.device)
        prefix = f"blocks.{block}.ffn"
        for name, axis in (("gate", 0), ("up", 0), ("down", 1)):
            key = f"{prefix}.{name}.weight"
            state[key] = state[key].index_select(axis, channels)
    pruned_config = ModelConfig.model_validate({**config.model_dump(), "ffn_dim": keep})
    content = None if model.content is None else model.content.features
    pruned = Recommender(model.n_items, pruned_config, content)
    pruned.load_state_dict(state)
    return pruned.to(model.id_embedding.device).eval()
