# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The blocks that networks are made of: one mixes the past into an event, then a SwiGLU follows.

A block is `x + σ(W x) ⊙ f(LN x)` for the mixing and for the SwiGLU: the learned gate lets deep
stacks train where the plain residual block collapses. Source: Borisyuk et al. 2025 (LiGR),
arXiv:2502.03417; its use for next-item prediction: Tikhonovich et al. 2025 (eSASRec).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_core.models.context import N_GAP_BUCKETS
from recsys_core.models.dropout import Dropout
from recsys_core.models.gru import Gru
from recsys_core.models.pooling import DecayingMean
from recsys_core.models.rotary import rotate


class Block(nn.Module):
    """Gated causal self-attention, then a gated SwiGLU."""

    def __init__(
        self, dim: int, n_heads: int, ffn_dim: int, dropout: float, *, time_gaps: bool = False
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CausalAttention(dim, n_heads, time_gaps=time_gaps)
        self.attention_gate = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = SwiGLU(dim, ffn_dim)
        self.ffn_gate = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch length dim"],
        angles: Float[Tensor, "length half"] | None = None,
        buckets: Int[Tensor, "batch length length"] | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        """One block."""
        return self.finish(x, self.attention(self.attention_norm(x), angles, buckets))

    def finish(
        self, x: Float[Tensor, "batch length dim"], attended: Float[Tensor, "batch length dim"]
    ) -> Float[Tensor, "batch length dim"]:
        """The block's output, from its input and what attention has made of it."""
        return _feed_forward(self, _gated(x, self.attention_gate, self.dropout(attended)))


class RecurrentBlock(nn.Module):
    """A gated recurrence along the history, then a gated SwiGLU."""

    def __init__(self, recurrence: Gru | DecayingMean, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        dim = recurrence.dim
        self.recurrence_norm = nn.LayerNorm(dim)
        self.recurrence = recurrence
        self.recurrence_gate = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = SwiGLU(dim, ffn_dim)
        self.ffn_gate = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch length dim"], angles: None = None, buckets: None = None
    ) -> Float[Tensor, "batch length dim"]:
        """One block; the order of events is in the recurrence, so it takes no positions."""
        return self.finish(x, self.recurrence(self.recurrence_norm(x)))

    def finish(
        self, x: Float[Tensor, "batch length dim"], mixed: Float[Tensor, "batch length dim"]
    ) -> Float[Tensor, "batch length dim"]:
        """The block's output, from its input and what the recurrence has made of it."""
        return _feed_forward(self, _gated(x, self.recurrence_gate, self.dropout(mixed)))


AnyBlock = Block | RecurrentBlock


class CausalAttention(nn.Module):
    """Multi-head attention over the past and the present.

    Query, key and value are separate layers, because a packed layer would be sliced in the exported
    graph and could not be quantized. Attention weights have no dropout, because it would rule out
    the fused kernel, and a CPU would take twice the time.
    """

    def __init__(self, dim: int, n_heads: int, *, time_gaps: bool = False) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.gap_bias = nn.Parameter(torch.zeros(N_GAP_BUCKETS, n_heads)) if time_gaps else None
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch length dim"],
        angles: Float[Tensor, "length half"] | None = None,
        buckets: Int[Tensor, "batch length length"] | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        """Attend to the past and the present."""
        query, key, value = (self.heads(layer(x)) for layer in (self.query, self.key, self.value))
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        if self.gap_bias is None or buckets is None:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            bias = F.embedding(buckets, self.gap_bias).permute(0, 3, 1, 2).to(query.dtype)
            later = torch.ones_like(buckets[0], dtype=torch.bool).triu(1)
            bias = bias.masked_fill(later, -torch.inf)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.output(mixed.transpose(1, 2).flatten(-2))

    def heads(
        self, projected: Float[Tensor, "batch length dim"]
    ) -> Float[Tensor, "batch heads length head_dim"]:
        """Split channels into heads."""
        return projected.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class SwiGLU(nn.Module):
    """`down(silu(gate x) ⊙ up x)`; its channels are what pruning removes.

    Source: Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, ffn_dim, bias=False)
        self.up = nn.Linear(dim, ffn_dim, bias=False)
        self.down = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Gated feed-forward."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


def _gated(
    x: Float[Tensor, "batch length dim"], gate: nn.Linear, update: Float[Tensor, "batch length dim"]
) -> Float[Tensor, "batch length dim"]:
    return x + torch.sigmoid(gate(x)) * update


def _feed_forward(
    block: AnyBlock, x: Float[Tensor, "batch length dim"]
) -> Float[Tensor, "batch length dim"]:
    return _gated(x, block.ffn_gate, block.dropout(block.ffn(block.ffn_norm(x))))
