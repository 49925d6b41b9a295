# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The gradients of a batch, part by part, in the arithmetic that suits the device."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from recsys_core.models.recommender import CPU_POSITIONS, Recommender
from recsys_core.training.batching import Batch
from recsys_core.training.negative_sampling import RestrictedBatch
from recsys_core.training.parallel import Shard, share_of

Loss = Callable[
    [Float[Tensor, "positions dim"], Float[Tensor, "rows dim"], RestrictedBatch], Float[Tensor, ""]
]
"""Loss of the states at the positions that have a target, in row-major order."""

Precision = Literal["auto", "fp32", "bf16"]


def backward(
    model: Recommender,
    item_vectors: Float[Tensor, "rows dim"],
    restricted: RestrictedBatch,
    loss: Loss,
    shard: Shard,
    *,
    precision: Precision,
    read_vectors: Float[Tensor, "rows dim"] | None = None,
) -> Float[Tensor, ""]:
    """Add a batch's gradients to those of the parameters behind states and item vectors.

    Args:
        model: Makes the states.
        item_vectors: What states are compared with.
        restricted: The batch.
        loss: What to minimise.
        shard: The processes of this training; the gradients are the sum of theirs.
        precision: Arithmetic of the encoder.
        read_vectors: What the histories' items are to the encoder; None: `item_vectors`.

    Returns:
        The loss of the whole batch.
    """
    # The parts add up their gradients in a leaf, so that item vectors are made once.
    leaf = item_vectors.detach().requires_grad_()
    read = leaf if read_vectors is None else read_vectors
    value = torch.zeros((), device=model.device)
    has_positions = False
    for part in _parts(shard.rows_of(restricted.batch), model.device):
        if share := share_of(part, restricted.batch):
            has_positions = True
            rows = restricted._replace(batch=part)
            value += _backward_part(model, leaf, read, rows, loss, share, precision)
    if not has_positions:  # a process without one of its own still adds gradients: zeros
        _zero(model, leaf).backward()
    item_vectors.backward(leaf.grad)
    return shard.sum_gradients(model, value)


def _backward_part(
    model: Recommender,
    item_vectors: Tensor,
    read_vectors: Tensor,
    part: RestrictedBatch,
    loss: Loss,
    share: float,
    precision: Precision,
) -> Tensor:
    """Add a part's gradients to the others'.

    Returns:
        What it adds to the loss of the batch.
    """
    device, context = model.device, part.batch.context
    on_gpu = device.type == "cuda"
    bf16 = precision == "bf16" or (precision == "auto" and on_gpu)
    with _bf16_encoder(bf16, device):
        states = model.encode(
            part.batch.history.to(device),
            read_vectors,
            None if context is None else context.to(device),
        )
    states = states.float()[part.batch.targets.to(device) > 0]
    with _tensor_cores(bf16 and on_gpu):
        value = loss(states, item_vectors, part) * share
        value.backward()
    return value.detach()


def _parts(batch: Batch, device: torch.device) -> list[Batch]:
    """A batch as parts that are worked on one after the other, to hold fewer activations."""
    if device.type != "cpu":
        return [batch]
    n_parts = max(1, -(-batch.history.numel() // CPU_POSITIONS))
    return [Shard(rank, n_parts).rows_of(batch) for rank in range(n_parts)]


def _zero(model: Recommender, item_vectors: Tensor) -> Tensor:
    """A loss of 0 with a gradient for every parameter, as sparse as the others' are."""
    rest = (p.sum() for p in model.parameters() if p is not model.id_embedding)
    return (item_vectors.sum() + sum(rest)) * 0


@contextmanager
def _bf16_encoder(on: bool, device: torch.device) -> Generator[None]:
    """The encoder's arithmetic where bf16 is on; else nothing changes.

    Without cuDNN's attention: it plans anew for every length of a batch, which takes longer than
    the epoch.
    """
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if not on:
        yield
        return
    with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(kernels):
        yield


@contextmanager
def _tensor_cores(on: bool) -> Generator[None]:
    """Let a GPU multiply fp32 matrices in TF32: ten bits of each factor, sums in fp32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on or before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
