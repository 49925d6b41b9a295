# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""A gated recurrent unit: an event's state is made of its input and the state before it.

Source: Cho et al. 2014, arXiv:1406.1078; for next-item prediction: Hidasi et al. 2016 (GRU4Rec),
arXiv:1511.06939.
"""

from jaxtyping import Float
from torch import Tensor, nn


class Gru(nn.Module):
    """One GRU over the history, as wide as its input; it begins with a state of zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.cell = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Float[Tensor, "batch length dim"]) -> Float[Tensor, "batch length dim"]:
        """State after each event."""
        return self.cell(x)[0]
