# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The sequential recommender: one stack of blocks, as teacher and as student."""

from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from recsys_core.models.block import AnyBlock, Block, RecurrentBlock
from recsys_core.models.context import N_KINDS, Context, gap_buckets
from recsys_core.models.dropout import Dropout
from recsys_core.models.fusion import Content, ContentFusion
from recsys_core.models.gru import Gru
from recsys_core.models.pooling import DecayingMean
from recsys_core.models.rotary import rotation_angles
from recsys_core.settings import Settings

CPU_POSITIONS = 8192
"""Events that a CPU encodes at once; more would cost memory without a gain in speed."""

MIN_FFN_DIM = 4
_INIT_STD = 0.02

Encoder = Literal["attention", "gru", "pooling"]
Positions = Literal["learned", "rotary"]


class ModelConfig(Settings):
    """Size of a recommender."""

    encoder: Encoder = Field(
        default="attention",
        description="What mixes the past into an event: attention, a GRU, or pooling, a mean of "
        "the past whose weights decay with the distance",
    )
    embedding_dim: int = Field(
        default=64, ge=8, le=1024, description="Width of item vectors and states"
    )
    n_layers: int = Field(default=2, ge=1, le=48, description="Blocks, each with its own weights")
    n_repeats: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Passes through all blocks, one after the other, with the same weights: depth "
        "that costs time but no bytes",
    )
    n_heads: int = Field(
        default=2,
        ge=1,
        le=32,
        description="Attention heads, or decay rates of pooling; divides embedding_dim. A GRU has "
        "none",
    )
    ffn_dim: int = Field(
        default=128, ge=MIN_FFN_DIM, le=8192, description="Channels inside each SwiGLU"
    )
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
        description="How attention knows the order: a learned vector per position, or rotary "
        "angles, which encode distances only. The other encoders know it by themselves",
    )
    event_kinds: bool = Field(
        default=False,
        description="Read the kinds of events (click, purchase, …). For teachers only",
    )
    time_gaps: bool = Field(
        default=False,
        description="Let attention read the time gaps between events. For teachers with attention "
        "only, on data with real times",
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
        ValueError: See `check_network`, or content has the wrong number of rows.

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
        check_network(config)
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
            if config.positions == "learned" and config.encoder == "attention"
            else None
        )
        self.kind_embedding = (
            nn.Parameter(torch.zeros(N_KINDS, dim)) if config.event_kinds else None
        )
        self.input_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(_make_block(config) for _ in range(config.n_layers))
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

    @property
    def layers(self) -> list[AnyBlock]:
        """The blocks in the order in which they run: each of them once in every pass."""
        return cast("list[AnyBlock]", list(self.blocks)) * self.config.n_repeats

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

        No event reads later ones and padding comes last, so no valid state depends on padding.

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
        for block in self.layers:
            x = block(x, angles, buckets)
        return self.final_norm(x)

    def add_positions(
        self, x: Float[Tensor, "batch length dim"]
    ) -> tuple[Float[Tensor, "batch length dim"], Float[Tensor, "length half"] | None]:
        """Add learned positions to events, or return the rotary angles for attention."""
        length = x.shape[1]
        if self.position_embedding is not None:
            return x + self.position_embedding[:length], None
        if self.config.encoder != "attention":
            return x, None
        positions = torch.arange(length, device=x.device)
        return x, rotation_angles(positions, self.config.embedding_dim // self.config.n_heads)


def check_network(config: ModelConfig) -> None:
    """Refuse sizes that contradict each other.

    Raises:
        ValueError: n_heads does not divide embedding_dim (into even heads, for rotary positions),
            or an encoder without attention should read time gaps.
    """
    if config.encoder != "attention" and config.time_gaps:
        msg = f"time_gaps need attention to read them, but encoder is {config.encoder!r}."
        raise ValueError(msg)
    if config.encoder == "gru":
        return
    if config.embedding_dim % config.n_heads:
        msg = f"n_heads={config.n_heads} must divide embedding_dim={config.embedding_dim}."
        raise ValueError(msg)
    is_rotary = config.encoder == "attention" and config.positions == "rotary"
    if is_rotary and config.embedding_dim // config.n_heads % 2:
        msg = (
            f"Rotary positions turn pairs of channels, but {config.n_heads} heads of "
            f"embedding_dim={config.embedding_dim} have an odd width."
        )
        raise ValueError(msg)


def _make_block(config: ModelConfig) -> AnyBlock:
    dim, ffn_dim, dropout = config.embedding_dim, config.ffn_dim, config.dropout
    if config.encoder == "gru":
        return RecurrentBlock(Gru(dim), ffn_dim, dropout)
    if config.encoder == "pooling":
        mean = DecayingMean(dim, config.n_heads, longest=config.max_length)
        return RecurrentBlock(mean, ffn_dim, dropout)
    return Block(dim, config.n_heads, ffn_dim, dropout, time_gaps=config.time_gaps)
