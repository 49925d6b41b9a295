"""Quantization: store all matrices of an exported graph as 8-bit integers.

- The item table is stored once, as unsigned bytes around 128 with a scale per block of a row:
  `GatherBlockQuantized` looks items up in it, `MatMulNBits` scores against it.
- Linear layers and GRUs have a scale per output channel, positions one per position; all are read
  through `DequantizeLinear`.

Scales have 16 bits, and so has the recency prior. Values are rounded to multiples of the scale that
is stored, so they are as close to the network's as with a scale of 32 bits. The exceptions are
blocks, rows and channels whose largest value is below .008: there the steps of 16-bit numbers grow
relative to the scale, which is rounded up.

Activations are rounded per row, so a user's scores do not depend on the other users of the batch.
(ONNX Runtime's `quantize_dynamic` takes one scale for a whole batch, padding included, which
changed scores by up to .2 between batch sizes.)
"""

# onnx is only partly typed.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from recsys_core.compression.export import ITEM_BIAS, POSITIONS, TABLE
from recsys_core.compression.short_names import shorten

_DOMAIN = "com.microsoft"
_LEVELS = 127
_ZERO_POINT = 128
MIN_BLOCK = 16
_MAX_BLOCK = 256
_INT8_ACTIVATIONS = 4
"""`accuracy_level` of MatMulNBits: the state is rounded block by block, which is 3 × faster."""

FloatMatrix = npt.NDArray[np.float32]


def quantize(source: Path, target: Path) -> None:
    """Write the int8 version of a graph, with the same inputs and outputs; it is deterministic.

    Args:
        source: A `.onnx` file written by `export_onnx`.
        target: The `.onnx` file to write.

    Raises:
        ValueError: The graph is not from `export_onnx`, the width of its item vectors is not a
            multiple of 16, or a matrix would stay fp32.
    """
    model = onnx.load(source)
    floats = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == 1}
    if TABLE not in floats:
        msg = f"{source} has no tensor {TABLE}; expected a graph from export_onnx."
        raise ValueError(msg)
    # The weights of MatMul are inputs × outputs; those of GRU are [1, gates, inputs].
    matrices = {
        name
        for node in model.graph.node
        for name in {"MatMul": node.input[1:2], "GRU": node.input[1:3]}.get(node.op_type, ())
        if name in floats
    }
    _quantize_table(model, numpy_helper.to_array(floats[TABLE]))
    positions = {POSITIONS} & floats.keys()  # none where positions are rotary
    for name in positions:
        _quantize_axis(model, floats[name], axis=0)
    for name in sorted(matrices):
        _quantize_axis(model, floats[name], axis=1)
    biases = {ITEM_BIAS} & floats.keys()  # none without a recency prior
    for name in biases:
        widen = _add_short(model, name, numpy_helper.to_array(floats[name]))
        _set_nodes(model, [widen, *model.graph.node])
    _drop(model, {TABLE, *positions, *matrices, *biases})
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    left = [tensor.name for tensor in model.graph.initializer if _is_matrix(tensor)]
    if left:
        msg = f"{source}: {left} would stay fp32; quantize does not know the operators they feed."
        raise ValueError(msg)
    shorten(model)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _quantize_table(model: ModelProto, table: FloatMatrix) -> None:
    """Replace the item table, its lookup and the scoring against it."""
    n_items, dim = table.shape
    block = _block_size(dim)
    blocks = table.reshape(n_items, dim // block, block)
    scales = _scales(blocks, axis=2)
    _add(model, f"{TABLE}_data", (np.rint(blocks / scales) + _ZERO_POINT).astype(np.uint8))
    nodes = [_add_short(model, f"{TABLE}_scales", scales[:, :, 0])]
    _add(model, f"{TABLE}_scales_shape", np.array([n_items, dim // block, 1], dtype=np.int64))
    _add(model, f"{TABLE}_row_shape", np.array([0, 0, dim], dtype=np.int64))
    for node in model.graph.node:
        if TABLE not in node.input:
            nodes.append(node)
        elif node.op_type == "Gather":
            nodes += _lookup(node, block)
        else:
            assert node.op_type == "Gemm"
            nodes.append(_product(node, block, n_items, dim))
    _set_nodes(model, nodes)


def _lookup(gather: NodeProto, block: int) -> list[NodeProto]:
    """Look up rows of the quantized table; the scales need the rank of the data."""
    return [
        helper.make_node(
            "Reshape",
            [f"{TABLE}_scales", f"{TABLE}_scales_shape"],
            [f"{TABLE}_lookup_scales"],
            f"{TABLE}_lookup_scales",
        ),
        helper.make_node(
            "GatherBlockQuantized",
            [f"{TABLE}_data", gather.input[1], f"{TABLE}_lookup_scales"],
            [f"{TABLE}_blocks"],
            f"{TABLE}_lookup",
            domain=_DOMAIN,
            bits=8,
            block_size=block,
            gather_axis=0,
            quantize_axis=2,
        ),
        helper.make_node(
            "Reshape", [f"{TABLE}_blocks", f"{TABLE}_row_shape"], gather.output, f"{TABLE}_rows"
        ),
    ]


def _product(gemm: NodeProto, block: int, n_items: int, dim: int) -> NodeProto:
    """Multiply states by the transposed quantized table."""
    return helper.make_node(
        "MatMulNBits",
        [gemm.input[0], f"{TABLE}_data", f"{TABLE}_scales"],
        gemm.output,
        f"{TABLE}_product",
        domain=_DOMAIN,
        bits=8,
        block_size=block,
        K=dim,
        N=n_items,
        accuracy_level=_INT8_ACTIVATIONS,
    )


def _quantize_axis(model: ModelProto, tensor: TensorProto, axis: int) -> None:
    """Replace a constant matrix by int8, one scale per index of `axis`, and DequantizeLinear."""
    matrix: FloatMatrix = numpy_helper.to_array(tensor)
    others = tuple(other for other in range(matrix.ndim) if other != axis)
    scales = _scales(matrix, axis=others)
    _add(model, f"{tensor.name}_data", np.rint(matrix / scales).astype(np.int8))
    widen = _add_short(model, f"{tensor.name}_scales", scales.ravel())
    restore = helper.make_node(
        "DequantizeLinear",
        [f"{tensor.name}_data", f"{tensor.name}_scales"],
        [tensor.name],
        f"{tensor.name}_restored",
        axis=axis,
    )
    _set_nodes(model, [widen, restore, *model.graph.node])


def _scales(values: FloatMatrix, axis: int | tuple[int, ...]) -> FloatMatrix:
    """Step size, fit for 16 bits, that maps the largest absolute value along `axis` to 127.

    It is rounded up, so that the largest value still fits. 1 for zeros.
    """
    largest = np.abs(values).max(axis=axis, keepdims=True)
    exact = np.where(largest > 0, largest / _LEVELS, 1)
    short = exact.astype(np.float16)
    return np.where(short < exact, np.nextafter(short, np.float16(np.inf)), short).astype(
        np.float32
    )


def _add_short(model: ModelProto, name: str, values: FloatMatrix) -> NodeProto:
    """Add numbers in 16 bits, and the node that widens them when the graph is loaded."""
    _add(model, f"{name}_short", values.astype(np.float16))
    return helper.make_node("Cast", [f"{name}_short"], [name], name, to=TensorProto.FLOAT)


def _block_size(dim: int) -> int:
    """Largest power of two that divides `dim` and for which ONNX Runtime has a kernel."""
    if dim % MIN_BLOCK:
        msg = (
            f"Item vectors of width {dim} cannot be stored in 8 bits: the width must be a multiple "
            f"of {MIN_BLOCK}. Change the student's embedding_dim."
        )
        raise ValueError(msg)
    return min(dim & -dim, _MAX_BLOCK)


def _is_matrix(tensor: TensorProto) -> bool:
    """Whether a constant is an fp32 matrix; axes of one do not count."""
    n_axes = sum(size > 1 for size in tensor.dims)
    return tensor.data_type == TensorProto.FLOAT and n_axes > 1


def _add(model: ModelProto, name: str, values: npt.NDArray[Any]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))


def _drop(model: ModelProto, names: set[str]) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _set_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)
