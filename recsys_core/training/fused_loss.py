# pyright: basic
# (liger-kernel is an extra: it need not be there to be read)
"""The full softmax by Liger's fused kernel, for GPUs (extra `recdistill[gpu]`).

Like the chunked softmax of `recsys_core.training.losses` it makes gradients in the forward pass and
never holds positions × items; softmax and gradient of a chunk are one Triton kernel. Source: Hsu et
al. 2024, Liger Kernel, arXiv:2410.10989.
"""

from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses import check_positions, check_targets


class FusedLossError(RuntimeError):
    """`fused_loss` is on, but the extra is not installed."""


def check_fused_loss() -> None:
    """Refuse the setting where the extra is missing.

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
    """`next_item_cross_entropy` of positions that all count alike.

    Args:
        states: What the model says of each position; on a GPU. They may be constants.
        item_vectors: Vectors of the items that compete; row 0 is padding.
        targets: Row of the next item, from 1.

    Returns:
        Mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target for each.
    """
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    check_positions(states, None)
    check_targets(targets, states)
    items = item_vectors[1:].contiguous()
    if not states.requires_grad:  # else the kernel makes no gradient at all
        states = states.detach().requires_grad_()
    accumulated = torch.float32
    loss, *_ = LigerFusedLinearCrossEntropyFunction.apply(
        states, items, targets - 1, None, None, -100, 0.0, 0.0, "mean", None, False, accumulated
    )
    return loss
