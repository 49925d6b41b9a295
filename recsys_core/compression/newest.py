# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""The newest state alone: what serving needs of the states that `Recommender.encode` computes."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_core.compression.gru_node import GruNode
from recsys_core.models.block import AnyBlock, Block
from recsys_core.models.gru import Gru
from recsys_core.models.pooling import DecayingMean
from recsys_core.models.recommender import Recommender
from recsys_core.models.rotary import rotate

_Angles = Float[Tensor, "length half"] | None


class NewestState(nn.Module):
    """State after the newest event of each history; equal to that of `Recommender.encode`.

    Of the last block, only what the newest event needs is computed.

    Args:
        model: The recommender.
    """

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model
        self.gru_nodes = nn.ModuleList(
            GruNode(block.recurrence.cell)
            for block in cast("list[AnyBlock]", list(model.blocks))
            if not isinstance(block, Block) and isinstance(block.recurrence, Gru)
        )

    def forward(
        self, x: Float[Tensor, "batch length dim"], newest: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """The states, from the scaled vectors of the events and the newest position."""
        x, angles = self.model.add_positions(x)
        *lower, last = self.model.layers
        for i, block in enumerate(lower):
            x = block.finish(x, self._mix(i, block, x, angles))
        mixed = self._mix_newest(len(lower), last, x, angles, newest)
        return self.model.final_norm(last.finish(_at(x, newest), mixed))[:, 0]

    def _mix(
        self, layer: int, block: AnyBlock, x: Float[Tensor, "batch length dim"], angles: _Angles
    ) -> Float[Tensor, "batch length dim"]:
        """What a block mixes into each event."""
        if isinstance(block, Block):
            return block.attention(block.attention_norm(x), angles)
        if self.gru_nodes:
            return self.gru_nodes[layer % len(self.gru_nodes)](block.recurrence_norm(x))
        return block.recurrence(block.recurrence_norm(x))

    def _mix_newest(
        self,
        layer: int,
        block: AnyBlock,
        x: Float[Tensor, "batch length dim"],
        angles: _Angles,
        newest: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch 1 dim"]:
        """What a block mixes into the newest event."""
        if isinstance(block, Block):
            return _attend(block, x, angles, newest)
        if isinstance(block.recurrence, DecayingMean):
            return block.recurrence.newest(block.recurrence_norm(x), newest)
        return _at(self._mix(layer, block, x, angles), newest)


def _attend(
    block: Block,
    x: Float[Tensor, "batch length dim"],
    angles: _Angles,
    newest: Int[Tensor, " batch"],
) -> Float[Tensor, "batch 1 dim"]:
    """Attention at the newest position; only keys and values are computed for the others."""
    attention = block.attention
    normed = block.attention_norm(x)
    query = attention.heads(attention.query(block.attention_norm(_at(x, newest))))
    key, value = attention.heads(attention.key(normed)), attention.heads(attention.value(normed))
    if angles is not None:
        query = rotate(query, angles[newest][:, None, None])
        key = rotate(key, angles)
    past = torch.arange(x.shape[1], device=x.device) <= newest[:, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=past[:, None, None])
    return attention.output(mixed.transpose(1, 2).flatten(-2))


def _at(
    x: Float[Tensor, "batch length dim"], newest: Int[Tensor, " batch"]
) -> Float[Tensor, "batch 1 dim"]:
    """The channels at one position of each history."""
    return x.gather(1, newest[:, None, None].expand(-1, 1, x.shape[2]))
