# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""A GRU as one ONNX node, which runs over histories of any length.

The exporter's own translation would slice and reorder the gates in the graph, where `quantize` does
not find the weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GruNode(nn.Module):
    """The node with the weights of a GRU; it can be exported only, not run.

    Args:
        cell: One layer in one direction. Its gates are ordered reset, update, new; those of ONNX
            are ordered update, reset, new.
    """

    def __init__(self, cell: nn.GRU) -> None:
        super().__init__()
        self.dim = cell.hidden_size
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        of_input, of_state, input_bias, state_bias = (
            _reorder(cell.get_parameter(name).detach()) for name in names
        )
        self.input_weight = nn.Buffer(of_input[None])
        self.state_weight = nn.Buffer(of_state[None])
        self.bias = nn.Buffer(torch.cat([input_bias, state_bias])[None])

    def forward(self, x: Float[Tensor, "batch length dim"]) -> Float[Tensor, "batch length dim"]:
        """State after each event."""
        batch, length, dim = x.shape
        states = torch.onnx.ops.symbolic(
            "GRU",
            (x.transpose(0, 1), self.input_weight, self.state_weight, self.bias),
            attrs={"hidden_size": self.dim, "linear_before_reset": 1},
            dtype=x.dtype,
            shape=(length, 1, batch, dim),
        )
        return states.squeeze(1).transpose(0, 1)


def _reorder(gates: Tensor) -> Tensor:
    reset, update, new = gates.chunk(3)
    return torch.cat([update, reset, new])
