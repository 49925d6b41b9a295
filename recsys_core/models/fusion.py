# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Content of items: any number of modalities, fused to one vector by a gate."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_INIT_STD = 0.02

Content = Mapping[str, Float[Tensor, "items_and_padding _width"]]
"""Features of all items by modality, such as "text": `[n_items + 1, width]` by item_idx. A row of
zeros means that the item lacks the modality; row 0 is padding."""


class ContentFusion(nn.Module):
    """Projects each modality and mixes the projections with weights that sum to 1 for each item.

    The features are fixed and not saved with the weights; projections and gates are trained. A
    missing modality has weight 0, and an item without any modality has the zero vector.

    Args:
        content: At least one modality.
        dim: Width of item vectors.

    Attributes:
        names: The modalities, sorted: the order of `projections` and `gates`.
    """

    def __init__(self, content: Content, dim: int) -> None:
        super().__init__()
        self.names = sorted(content)
        for i, name in enumerate(self.names):
            self.register_buffer(f"features_{i}", content[name], persistent=False)
        widths = [content[name].shape[1] for name in self.names]
        self.projections = nn.ModuleList(nn.Linear(width, dim, bias=False) for width in widths)
        gated = widths if len(widths) > 1 else []
        self.gates = nn.ModuleList(nn.Linear(width, 1) for width in gated)
        for layer in cast("list[nn.Linear]", [*self.projections, *self.gates]):
            nn.init.normal_(layer.weight, std=_INIT_STD)

    @property
    def features(self) -> dict[str, Float[Tensor, "items_and_padding _width"]]:
        """The features by modality."""
        return dict(zip(self.names, self.buffers(), strict=True))

    def forward(self, items: Int[Tensor, " rows"] | None = None) -> Float[Tensor, "rows dim"]:
        """Content vectors of these items (by item_idx), or of all."""
        features = self._features(items)
        projected = [layer(rows) for layer, rows in zip(self.projections, features, strict=True)]
        if len(projected) == 1:
            return projected[0]
        return (self._shares(features)[..., None] * torch.stack(projected, dim=1)).sum(dim=1)

    def gated_features(self, items: Int[Tensor, " rows"]) -> Float[Tensor, "rows widths"]:
        """Features side by side, each multiplied by its weight; content is linear in them."""
        features = self._features(items)
        if len(features) == 1:
            return features[0]
        shares = self._shares(features).split(1, dim=1)
        return torch.cat(
            [rows * share for rows, share in zip(features, shares, strict=True)], dim=1
        )

    def _features(self, items: Tensor | None) -> list[Tensor]:
        return [rows if items is None else rows[items] for rows in self.buffers()]

    def _shares(self, features: Sequence[Tensor]) -> Float[Tensor, "rows modalities"]:
        """Weight of each modality for each item."""
        logits = torch.cat(
            [gate(rows) for gate, rows in zip(self.gates, features, strict=True)], dim=1
        )
        present = torch.stack([rows.any(dim=1) for rows in features], dim=1)
        lowest = torch.finfo(
            logits.dtype
        ).min  # not -inf, which gives NaN for an item without any modality
        return torch.softmax(logits.masked_fill(~present, lowest), dim=1) * present

    @torch.no_grad()
    def set_projections(self, weights: Float[Tensor, "dim widths"]) -> None:
        """Set the weights of the projections, given side by side."""
        layers = cast("list[nn.Linear]", list(self.projections))
        widths = [layer.in_features for layer in layers]
        for layer, part in zip(layers, weights.split(widths, dim=1), strict=True):
            layer.weight.copy_(part)

    @torch.no_grad()
    def clear(self) -> None:
        """Make all content vectors zero."""
        for layer in cast("list[nn.Linear]", list(self.projections)):
            layer.weight.zero_()
