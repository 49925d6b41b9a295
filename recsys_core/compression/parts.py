"""What the bytes of a served model are spent on."""

# onnx is only partly typed.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from collections import defaultdict
from math import prod
from pathlib import Path

import onnx
from onnx import GraphProto

from recsys_core.serving.folder import served_files

_READ_BY = {
    "item table": {("GatherBlockQuantized", 0), ("MatMulNBits", 1), ("Gather", 0), ("Gemm", 1)},
    "recency prior": {("Add to scores", 1)},
    "scales": {("Cast", 0), ("DequantizeLinear", 1)},
    "linear layers": {("MatMul", 1), ("GRU", 1), ("GRU", 2)},
    "positions": {("Slice", 0)},
    "norms and biases": {
        ("LayerNormalization", 1),
        ("LayerNormalization", 2),
        ("Add", 1),
        ("GRU", 3),
    },
}
"""Operators and their inputs that tell what a constant is, in int8 and in fp32 graphs."""


def bytes_by_part(folder: Path) -> dict[str, int]:
    """Bytes of the graph's constants by their use, of its structure, and of the other files.

    The structure is the rest of the graph: nodes, names and small constants. The sum over all parts
    is the size of the files on disk.

    Args:
        folder: A served model's folder.
    """
    graph, ids, config = served_files(folder)
    constants = _bytes_of_constants(onnx.load(graph).graph)
    return {
        **constants,
        "structure": graph.stat().st_size - sum(constants.values()),
        "item ids": ids.stat().st_size,
        "configuration": config.stat().st_size,
    }


def _bytes_of_constants(graph: GraphProto) -> dict[str, int]:
    uses = _uses(graph)
    sizes = dict.fromkeys(_READ_BY, 0)
    for tensor in graph.initializer:
        part = next((part for part, uses_of in _READ_BY.items() if uses_of & uses[tensor.name]), "")
        if part and prod(tensor.dims) > 1:
            sizes[part] += len(tensor.raw_data)
    return sizes


def _uses(graph: GraphProto) -> dict[str, set[tuple[str, int]]]:
    """Who reads a value: operators and the places among their inputs.

    A value that is only restored from 8 or 16 bits has the uses of what it is restored to.
    """
    uses: dict[str, set[tuple[str, int]]] = defaultdict(set)
    scores = {node.output[0] for node in graph.node if node.op_type in ("Gemm", "MatMulNBits")}
    for node in reversed(graph.node):
        adds_to_scores = node.op_type == "Add" and node.input[0] in scores
        for place, name in enumerate(node.input):
            uses[name].add(("Add to scores" if adds_to_scores else node.op_type, place))
        if node.op_type in ("DequantizeLinear", "Cast"):
            uses[node.input[0]] |= uses[node.output[0]]
    return uses
