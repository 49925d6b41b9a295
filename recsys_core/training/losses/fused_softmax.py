# pyright: basic
# (liger-kernel is an optional extra)
"""The full softmax with Liger's fused kernel, for GPUs (extra `recdistill[gpu]`).

Like `full_softmax` it computes gradients in the forward pass and never holds positions × items
logits; one Triton kernel computes softmax and gradient of a chunk. Source: Hsu et al. 2024, Liger
Kernel, arXiv:2410.10989.
"""

from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_positions, check_targets


class FusedLossError(RuntimeError):
    """`fused_loss` is on, but the extra is not installed."""


def check_fused_loss() -> None:
    """Refuse the setting `fused_loss` if the extra is missing.

    Raises:
        FusedLossError: The extra is not installed.
    """
    if find_spec("liger_kernel") is None:
        msg = "fused_loss needs the extra: pip install 'recdistill[gpu]'; or set it to false."
        raise FusedLossError(msg)


def fused_cross_entropy(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
) -> Float[Tensor, ""]:
    """`next_item_cross_entropy` for positions of equal weight.

    Args:
        states: The model's state at each position, on a GPU. They need no gradient.
        item_vectors: Vectors of the candidates; row 0 is padding.
        targets: Row of the next item, from 1.

    Returns:
        Mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or there is not one target per position.
    """
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    check_positions(states, None)
    check_targets(targets, states)
    items = item_vectors[1:].contiguous()
    if not states.requires_grad:  # otherwise the kernel computes no gradient
        states = states.detach().requires_grad_()
    accumulated = torch.float32
    loss, *_ = LigerFusedLinearCrossEntropyFunction.apply(
        states, items, targets - 1, None, None, -100, 0.0, 0.0, "mean", None, False, accumulated
    )
    return loss
