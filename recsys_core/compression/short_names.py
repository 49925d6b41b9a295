"""Short names: a graph says the same in fewer bytes.

Every name of a value is stored where it is computed and wherever it is read, so the names that the
exporter gives take more bytes than the nodes.
"""

# onnx is only partly typed.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, defs


def shorten(model: ModelProto) -> None:
    """Number the values in the order of their first use; drop what ONNX assumes anyway.

    The names of nodes and the attributes that have their default value are dropped. Names of inputs
    and outputs stay. The graph computes the same, bit by bit.
    """
    graph = model.graph
    names = {value.name: value.name for value in [*graph.input, *graph.output]}
    for name in _names(graph):
        names.setdefault(name, np.base_repr(len(names), 36))
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    versions = {opset.domain: opset.version for opset in model.opset_import}
    for node in graph.node:
        node.ClearField("name")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        needed = [item for item in node.attribute if not _is_default(node, item, versions)]
        del node.attribute[:]
        node.attribute.extend(needed)


def _names(graph: GraphProto) -> Iterator[str]:
    """All names of values; the empty name, an optional value left out, stays as it is."""
    for node in graph.node:
        yield from filter(None, [*node.input, *node.output])


def _is_default(node: NodeProto, attribute: AttributeProto, versions: dict[str, int]) -> bool:
    version = versions[node.domain]
    if not defs.has(node.op_type, version, node.domain):
        return False
    known = defs.get_schema(node.op_type, version, node.domain).attributes
    return known[attribute.name].default_value == attribute
