# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The sequential recommender: one decoder stack, as teacher and as student.

A block is `x + σ(W x) ⊙ f(LN x)` for attention and for SwiGLU: the learned gate lets deep stacks
train where the plain residual block collapses. Source: Borisyuk et al. 2025 (LiGR),
arXiv:2502.03417; its use for next-item prediction: Tikhonovich et al. 2025 (eSASRec).
"""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from recsys_core.models.context import N_GAP_BUCKETS, N_KINDS, Context, gap_buckets
from recsys_core.models.dropout import Dropout
from recsys_core.models.fusion import Content, ContentFusion
from recsys_core.models.rotary import rotate, rotation_angles
from recsys_core.settings import Settings

CPU_POSITIONS = 8192
"""Events that a CPU encodes at once; more would cost memory without a gain in speed."""

_INIT_STD = 0.02

Positions = Literal["learned", "rotary"]


class ModelConfig(Settings):
    """Size of a recommender."""

    embedding_dim: int = Field(
        default=64, ge=8, le=1024, description="Width of item vectors and states"
    )
    n_layers: int = Field(default=2, ge=1, le=48, description="Decoder blocks")
    n_heads: int = Field(
        default=2, ge=1, le=32, description="Attention heads; divides embedding_dim"
    )
    ffn_dim: int = Field(default=128, ge=4, le=8192, description="Channels inside each SwiGLU")
    max_length: int = Field(
        default=200, ge=2, le=4096, description="Longest history used, in events"
    )
    id_bound: float | None = Field(
        default=None,
        gt=0,
        description="Largest length of the id embedding that is added to an item's content; empty: "
        "no bound",
    )
    id_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of items whose id embedding is dropped in a training step, so that "
        "content is trained for cold items",
    )
    positions: Positions = Field(
        default="learned",
        description="How order is encoded: a learned vector per position, or rotary angles, which "
        "encode distances only",
    )
    event_kinds: bool = Field(
        default=False,
        description="Read the kinds of events (click, purchase, …). For teachers only",
    )
    time_gaps: bool = Field(
        default=False,
        description="Let attention read the time gaps between events. For teachers only, on data "
        "with real times",
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="Share of activations dropped in training"
    )

    @property
    def reads_context(self) -> bool:
        """Whether the model reads the kinds and times of events."""
        return self.event_kinds or self.time_gaps


class Recommender(nn.Module):
    """Maps a history to states; an item's score is the dot product of its vector and a state.

    Args:
        n_items: Length of the item index; item_idx runs from 1 to n_items, 0 is padding.
        config: Size of the network.
        content: Fixed content features by modality. If given, an item's vector is its fused content
            plus its id embedding, so a cold item has a vector too.

    Raises:
        ValueError: n_heads does not divide embedding_dim (into even heads, for rotary positions),
            or content has the wrong number of rows.

    Example:
        >>> import torch
        >>> model = Recommender(n_items=5, config=ModelConfig(embedding_dim=8)).eval()
        >>> history = torch.tensor([[3, 1, 4], [2, 0, 0]])  # item_idx; 0 is padding
        >>> item_vectors = model.item_vectors()
        >>> states = model.encode(history, item_vectors)
        >>> (states[:, -1] @ item_vectors.T).shape  # users × (padding and items)
        torch.Size([2, 6])
    """

    item_bias: Float[Tensor, " items_and_padding"] | None
    """Added to the scores of items when ranking, by item_idx: the recency prior. Training, soft
    labels and warm starts don't read it, so each night and each network fits its own."""

    def __init__(
        self,
        n_items: int,
        config: ModelConfig,
        content: Content | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("item_bias", None, persistent=False)
        if config.embedding_dim % config.n_heads:
            msg = f"n_heads={config.n_heads} must divide embedding_dim={config.embedding_dim}."
            raise ValueError(msg)
        if config.positions == "rotary" and config.embedding_dim // config.n_heads % 2:
            msg = (
                f"Rotary positions turn pairs of channels, but {config.n_heads} heads of "
                f"embedding_dim={config.embedding_dim} have an odd width."
            )
            raise ValueError(msg)
        for name, rows in (content or {}).items():
            if len(rows) != n_items + 1:
                msg = (
                    f"content {name!r} has {len(rows)} rows, expected n_items + 1 = {n_items + 1}."
                )
                raise ValueError(msg)
        self.config = config
        self.n_items = n_items
        dim = config.embedding_dim
        self.id_embedding = nn.Parameter(torch.randn(n_items + 1, dim) * _INIT_STD)
        self.content = ContentFusion(content, dim) if content else None
        self.position_embedding = (
            nn.Parameter(torch.randn(config.max_length, dim) * _INIT_STD)
            if config.positions == "learned"
            else None
        )
        self.kind_embedding = (
            nn.Parameter(torch.zeros(N_KINDS, dim)) if config.event_kinds else None
        )
        self.input_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(dim, config.n_heads, config.ffn_dim, config.dropout, time_gaps=config.time_gaps)
            for _ in range(config.n_layers)
        )
        self.final_norm = nn.LayerNorm(dim)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.id_embedding.device

    @property
    def reads_context(self) -> bool:
        """Whether it reads the kinds and times of events."""
        return self.config.reads_context

    @property
    def max_length(self) -> int:
        """Longest history, in events."""
        return self.config.max_length

    @property
    def width(self) -> int:
        """Width of states and item vectors."""
        return self.config.embedding_dim

    def item_vectors(
        self, items: Int[Tensor, " rows"] | None = None, *, sparse: bool = False
    ) -> Float[Tensor, "rows dim"]:
        """Vectors of items; row 0 (padding) is zero.

        Args:
            items: item_idx of each row; row 0 is padding. None: all items by item_idx.
            sparse: Whether the gradient of the id embedding is sparse: the rows of `items` only.
        """
        vectors = self.id_embedding
        if items is not None:
            vectors = F.embedding(items, vectors, sparse=sparse)
        if self.content is not None:
            vectors = self._id_share(vectors) + self.content(items)
        return torch.cat([torch.zeros_like(vectors[:1]), vectors[1:]])

    @torch.no_grad()
    def warm_start_from(self, parent: "Recommender") -> None:
        """Take the weights of an earlier model of the same size over a prefix of the items.

        Items that the parent lacks get a zero id embedding: their vector is their content.

        Raises:
            ValueError: The parent has another size or other content, or it knows more items.
        """
        if parent.n_items > self.n_items:
            msg = (
                f"The earlier model does not fit: it knows {parent.n_items} items, not "
                f"{self.n_items}. Train in full."
            )
            raise ValueError(msg)
        self._take_networks(parent)
        self.id_embedding.zero_()[: parent.n_items + 1] = parent.id_embedding

    @torch.no_grad()
    def initialise_from_other_catalogue(self, source: "Recommender") -> None:
        """Take the weights of a model of the same size and modalities over other items.

        The id embeddings are not taken but set to zero: the vector of an item is its content.

        Raises:
            ValueError: The source has another size or other content, or none.
        """
        if source.content is None:
            msg = "The other model has no content, and its ids mean nothing for these items."
            raise ValueError(msg)
        self._take_networks(source)
        self.id_embedding.zero_()

    def _take_networks(self, other: "Recommender") -> None:
        """Load all weights of another model except its id embedding."""
        mine, theirs = self.state_dict(), other.state_dict()
        del mine["id_embedding"], theirs["id_embedding"]
        differing = [
            name
            for name in mine.keys() | theirs.keys()
            if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape
        ]
        kinds, known = (
            [] if model.content is None else model.content.names for model in (self, other)
        )
        if differing or kinds != known:
            msg = (
                f"The other model does not fit: it has other shapes of "
                f"{', '.join(sorted(differing)) or 'nothing'}, and content {known}, not {kinds}. "
                "Train in full, or give this model its sizes and kinds of content."
            )
            raise ValueError(msg)
        self.load_state_dict({**theirs, "id_embedding": self.id_embedding})

    def _id_share(self, ids: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
        """The id embeddings to add to content: bounded in length, partly dropped in training."""
        bound, dropped = self.config.id_bound, self.config.id_dropout
        if bound is not None:
            lengths = ids.norm(dim=1, keepdim=True).clamp(min=torch.finfo(ids.dtype).tiny)
            ids = ids * (bound / lengths).clamp(max=1.0)
        if self.training and dropped:
            ids = ids * (torch.rand(len(ids), 1, device=ids.device) >= dropped)
        return ids

    def has_id_embedding(self, items: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which of these items (item_idx) have an id embedding other than 0."""
        rows = self.id_embedding[torch.from_numpy(items.astype(np.int64))]
        return rows.any(dim=1).cpu().numpy()

    @torch.no_grad()
    def zero_id_embeddings(self, items: NDArray[np.integer[Any]]) -> None:
        """Set the id embedding of these items (item_idx) to 0: their vector is their content."""
        self.id_embedding[torch.from_numpy(items.astype(np.int64))] = 0.0

    def encode(
        self,
        history: Int[Tensor, "batch length"],
        item_vectors: Float[Tensor, "items_and_padding dim"],
        context: Context | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        """State after each event of right-padded histories (oldest first, 0 is padding).

        Attention is causal and padding comes last, so no valid state depends on padding.

        Args:
            history: item_idx.
            item_vectors: The result of `item_vectors`.
            context: Kinds and times of the events; required if the model reads them.

        Raises:
            ValueError: The histories are longer than max_length, or the context is missing.
        """
        if self.reads_context and context is None:
            msg = "This model reads the kinds and times of events: give the histories' context."
            raise ValueError(msg)
        length = history.shape[1]
        if length > self.config.max_length:
            msg = f"Histories of {length} events exceed max_length={self.config.max_length}."
            raise ValueError(msg)
        x = F.embedding(history, item_vectors) * self.config.embedding_dim**0.5
        buckets = None
        if context is not None and self.kind_embedding is not None:
            x = x + F.embedding(context.kinds, self.kind_embedding)
        if context is not None and self.config.time_gaps:
            buckets = gap_buckets(context.times)
        x, angles = self.add_positions(x)
        x = self.input_dropout(x)
        for block in self.blocks:
            x = block(x, angles, buckets)
        return self.final_norm(x)

    def add_positions(
        self, x: Float[Tensor, "batch length dim"]
    ) -> tuple[Float[Tensor, "batch length dim"], Float[Tensor, "length half"] | None]:
        """Add learned positions to events, or return the rotary angles for the blocks."""
        length = x.shape[1]
        if self.position_embedding is not None:
            return x + self.position_embedding[:length], None
        positions = torch.arange(length, device=x.device)
        return x, rotation_angles(positions, self.config.embedding_dim // self.config.n_heads)


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
        update = self.dropout(self.attention(self.attention_norm(x), angles, buckets))
        x = x + torch.sigmoid(self.attention_gate(x)) * update
        update = self.dropout(self.ffn(self.ffn_norm(x)))
        return x + torch.sigmoid(self.ffn_gate(x)) * update


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
