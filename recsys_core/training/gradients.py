# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""One gradient step on a batch, computed part by part in the device's arithmetic."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from recsys_core.models.recommender import CPU_POSITIONS, Recommender
from recsys_core.training.batch import Batch
from recsys_core.training.negative_sampling import RestrictedBatch
from recsys_core.training.parallel import Shard, share_of

Loss = Callable[
    [Float[Tensor, "positions dim"], Float[Tensor, "rows dim"], RestrictedBatch], Float[Tensor, ""]
]
"""The loss of the states at the positions that have a target, in row-major order."""

Precision = Literal["auto", "fp32", "bf16"]


def gradient_step(
    model: Recommender,
    optimizers: Sequence[torch.optim.Optimizer],
    item_vectors: Float[Tensor, "rows dim"],
    restricted: RestrictedBatch,
    loss: Loss,
    shard: Shard,
    *,
    learning_rate: float,
    clip_norm: float,
    precision: Precision,
    read_vectors: Float[Tensor, "rows dim"] | None = None,
) -> float:
    """Make one optimizer step, unless the loss or its gradient is not finite.

    Args:
        model: Its parameters change.
        optimizers: Over parameters of the model.
        item_vectors: See `backward`.
        restricted: The batch.
        loss: The loss to minimise.
        shard: This process's share of every batch.
        learning_rate: For all parameters.
        clip_norm: Largest norm of the gradient; see `clip_gradients`.
        precision: Arithmetic of the encoder.
        read_vectors: See `backward`.

    Returns:
        The loss of the batch; NaN if there was no step.
    """
    model.zero_grad(set_to_none=True)
    value = backward(
        model,
        item_vectors,
        restricted,
        loss,
        shard,
        precision=precision,
        read_vectors=read_vectors,
    )
    if not (value.isfinite() and clip_gradients(model, clip_norm).isfinite()):
        return math.nan
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    return value.item()


def backward(
    model: Recommender,
    item_vectors: Float[Tensor, "rows dim"],
    restricted: RestrictedBatch,
    loss: Loss,
    shard: Shard,
    *,
    precision: Precision,
    read_vectors: Float[Tensor, "rows dim"] | None = None,
    cpu_positions: int = CPU_POSITIONS,
) -> Float[Tensor, ""]:
    """Add a batch's gradients to those of the parameters behind states and item vectors.

    Args:
        model: Encodes the histories.
        item_vectors: Vectors of the candidates, which score the states.
        restricted: The batch.
        loss: The loss to minimise.
        shard: This process's share of every batch; gradients are summed over all processes.
        precision: Arithmetic of the encoder.
        read_vectors: Vectors of the histories' items, as the encoder reads them; None:
            `item_vectors`.
        cpu_positions: On a CPU a batch of more positions is split into parts.

    Returns:
        The loss of the whole batch.
    """
    # The parts sum their gradients in a leaf, so that item vectors are computed once.
    leaf = item_vectors.detach().requires_grad_()
    read = leaf if read_vectors is None else read_vectors
    value = torch.zeros((), device=model.device)
    has_positions = False
    for part in _parts(shard.rows_of(restricted.batch), model.device, cpu_positions):
        if share := share_of(part, restricted.batch):
            has_positions = True
            rows = restricted._replace(batch=part)
            value += _backward_part(model, leaf, read, rows, loss, share, precision)
    if not has_positions:  # a process without a position still takes part in the sum, with zeros
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
    """Add the gradients of one part.

    Returns:
        Its contribution to the loss of the batch.
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


def clip_gradients(model: Recommender, max_norm: float) -> Float[Tensor, ""]:
    """Scale all gradients by one factor to at most this norm; a sparse gradient repeats no row.

    Returns:
        The norm before.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    values = [grad._values() if grad.is_sparse else grad for grad in gradients]
    norm = torch.linalg.vector_norm(torch.stack([v.norm() for v in values]))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
    return norm


def _parts(batch: Batch, device: torch.device, cpu_positions: int) -> list[Batch]:
    """A batch in parts that are processed one after the other, to hold fewer activations."""
    if device.type != "cpu":
        return [batch]
    n_parts = max(1, -(-batch.history.numel() // cpu_positions))
    return [Shard(rank, n_parts).rows_of(batch) for rank in range(n_parts)]


def _zero(model: Recommender, item_vectors: Tensor) -> Tensor:
    """A loss of 0 with a gradient for every parameter, sparse where a real one would be."""
    rest = (p.sum() for p in model.parameters() if p is not model.id_embedding)
    return (item_vectors.sum() + sum(rest)) * 0


@contextmanager
def _bf16_encoder(on: bool, device: torch.device) -> Generator[None]:
    """Run the encoder in bf16, if on.

    cuDNN's attention is off: it builds a new plan for every length of a batch, which takes longer
    than the epoch.
    """
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if not on:
        yield
        return
    with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(kernels):
        yield


@contextmanager
def _tensor_cores(on: bool) -> Generator[None]:
    """Let a GPU multiply fp32 matrices in TF32, if on: 10-bit mantissas, sums in fp32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on or before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
