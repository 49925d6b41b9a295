"""Rotary positions: queries and keys are rotated by angles proportional to the position.

The dot product of two rotated vectors depends only on the distance of their positions. Source: Su
et al. 2021 (RoFormer), arXiv:2104.09864.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LONGEST_WAVE = 10_000.0


def rotation_angles(
    positions: Int[Tensor, "*batch length"], head_dim: int
) -> Float[Tensor, "*batch length half"]:
    """Angle of each position for each pair of channels, in radians.

    Args:
        positions: Positions in the history.
        head_dim: Width of a head; even.
    """
    pairs = torch.arange(0, head_dim, 2, device=positions.device) / head_dim
    return positions[..., None] * _LONGEST_WAVE**-pairs


def rotate(
    x: Float[Tensor, "batch heads length head_dim"], angles: Float[Tensor, "*batch length half"]
) -> Float[Tensor, "batch heads length head_dim"]:
    """Rotate channels i and i + half together by the position's i-th angle."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
