# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Pooling: a mean of the past whose weights decay exponentially with the distance.

It is attention without queries and keys: weights depend on the distance alone, so they are the same
for all histories, and the newest state costs one weighted sum per layer.
"""

from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class DecayingMean(nn.Module):
    """A projection of each event, averaged over the past and the present.

    Args:
        dim: Width of the events.
        n_rates: Number of decay rates, each for an equal share of the channels; divides `dim`.
        longest: Length in events that the first half-lives are spread over, on a logarithmic scale.
    """

    def __init__(self, dim: int, n_rates: int, *, longest: int) -> None:
        super().__init__()
        self.dim = dim
        self.value = nn.Linear(dim, dim)
        half_lives = longest ** ((torch.arange(n_rates) + 0.5) / n_rates)
        self.log_rates = nn.Parameter((log(2) / half_lives).log())

    def forward(self, x: Float[Tensor, "batch length dim"]) -> Float[Tensor, "batch length dim"]:
        """The mean after each event."""
        positions = torch.arange(x.shape[1], device=x.device)
        weights = self.weights(positions[:, None] - positions)
        return torch.einsum("tsr,bsrc->btrc", weights, self._by_rate(x)).flatten(-2)

    def newest(
        self, x: Float[Tensor, "batch length dim"], newest: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch 1 dim"]:
        """The mean after the event at position `newest` of each history only."""
        distances = newest[:, None] - torch.arange(x.shape[1], device=x.device)
        weighted = self.weights(distances)[..., None] * self._by_rate(x)
        return weighted.sum(dim=1, keepdim=True).flatten(-2)

    def weights(self, distances: Int[Tensor, "rows length"]) -> Float[Tensor, "rows length rates"]:
        """Weight of events at these distances; 0 if negative, and 1 in sum over a row."""
        decayed = torch.exp(-self.log_rates.exp() * distances.clamp(min=0)[..., None])
        decayed = decayed * (distances >= 0)[..., None]
        return decayed / decayed.sum(dim=1, keepdim=True)

    def _by_rate(
        self, x: Float[Tensor, "batch length dim"]
    ) -> Float[Tensor, "batch length rates channels"]:
        return self.value(x).unflatten(-1, (len(self.log_rates), -1))
