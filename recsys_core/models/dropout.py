# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""Dropout that draws one byte per activation; on a CPU the draw is the main cost of dropout."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_LEVELS = 256
_WORD = 8  # bytes in a drawn integer


class Dropout(nn.Module):
    """Zero a share of the activations in training, and scale the others up to keep the mean.

    On a CPU the share is rounded to a multiple of 1/256, so that one drawn integer decides eight
    activations. On other devices this is torch's own dropout.

    Args:
        p: Share of the activations, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._dropped = min(round(p * _LEVELS), _LEVELS - 1)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop activations in training mode only."""
        if not self.training or not self._dropped:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        words = torch.empty(-(-x.numel() // _WORD), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int8)[: x.numel()].view(x.shape)  # uniform on -128 … 127
        kept = (drawn >= self._dropped - _LEVELS // 2).to(x.dtype)
        return x * kept.mul_(_LEVELS / (_LEVELS - self._dropped))
