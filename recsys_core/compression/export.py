"""Export a recommender as one ONNX graph from history to top-k, to serve without torch.

Graph inputs (int64; rows are compact rows 1 … n_active, 0 is padding):

- `history` [batch, length]: oldest first, padded on the right, length at least 1;
- `exclude` [batch, n_exclude]: rows that are not recommended, 0 for none;
- `k` [1]: how many to recommend, at most n_active.

Graph outputs:

- `top_rows` [batch, k] int64: compact rows, best first; excluded rows come last with score -inf;
- `top_scores` [batch, k] float32;
- `scores` [batch, n_active] float32: all scores, column = row - 1, none excluded.

After a history without an item, row 1 is the best and the last row the worst, with scores n_active
… 1: the rows are in the order of popularity, so that this answer takes no bytes.
"""

# torch.onnx and torch._check are only partly typed.
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false

import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from onnx import numpy_helper
from onnxscript import ir
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from torch.export import Dim

from recsys_core.compression.newest import NewestState
from recsys_core.models.recommender import Recommender

OPSET = 23
TABLE = "item_table"
ITEM_BIAS = "item_bias"
POSITIONS = "newest_state.model.position_embedding"
INPUTS = ("history", "exclude", "k")
OUTPUTS = ("top_rows", "top_scores", "scores")
_LONGEST_RANGE = 512
"""Numbers of a range that may be stored; a longer one is counted when the graph is loaded."""
_OPEN_SIZES = (
    ("history", ("batch", "length")),
    ("exclude", ("batch", "n_exclude")),
    ("top_rows", ("batch", "k")),
    ("top_scores", ("batch", "k")),
    ("scores", ("batch",)),
)


def export_onnx(
    model: Recommender,
    path: Path,
    *,
    active: Sequence[int],
    opset: int = OPSET,
) -> None:
    """Write the graph described above; equal models give equal bytes.

    Args:
        model: Put into evaluation mode, otherwise unchanged.
        path: The `.onnx` file to write; it contains the weights.
        active: item_idx of the items to serve, in the order of the compact rows: the most popular
            first, as a history without a valid item gets them.
        opset: Version of the ONNX operators.

    Raises:
        ValueError: `active` holds no item, one twice, or one that the model does not know.
    """
    graph = ServingGraph(model, active).eval()
    # The traced batch has size 2, because the exporter would fix a size of 1 as a constant.
    length = min(4, model.config.max_length)
    history = torch.ones(2, length, dtype=torch.int64)
    exclude = torch.zeros(2, 3, dtype=torch.int64)
    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            (history, exclude, torch.ones(1, dtype=torch.int64)),
            dynamo=True,
            opset_version=opset,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=(
                {0: Dim("batch"), 1: Dim("length", max=model.config.max_length)},
                {0: Dim.AUTO, 1: Dim("n_exclude")},
                None,
            ),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    optimize_ir(program.model, should_fold=_folds)
    proto = _clean(program.model_proto)
    _name_sizes(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


class ServingGraph(nn.Module):
    """The exported network: state of the newest event, all scores, exclusion and top-k.

    Args:
        model: The recommender.
        active: See `export_onnx`.

    Raises:
        ValueError: See `export_onnx`.
    """

    def __init__(self, model: Recommender, active: Sequence[int]) -> None:
        super().__init__()
        _check_active(active, model.n_items)
        self.newest_state = NewestState(model)
        self.item_table = nn.Parameter(model.item_vectors().detach()[list(active)])
        bias = model.item_bias
        self.item_bias = None if bias is None else nn.Buffer(bias[list(active)])

    def forward(
        self,
        history: Int[Tensor, "batch length"],
        exclude: Int[Tensor, "batch n_exclude"],
        k: Int[Tensor, " 1"],
    ) -> tuple[Int[Tensor, "batch k"], Float[Tensor, "batch k"], Float[Tensor, "batch n_active"]]:
        """Best rows, their scores, all scores."""
        n_events = (history > 0).sum(dim=1)
        # Padding may read any row, because no event reads later ones and padding comes last.
        x = (
            F.embedding((history - 1).clamp(min=0), self.item_table)
            * self.item_table.shape[1] ** 0.5
        )
        states = self.newest_state(x, (n_events - 1).clamp(min=0))
        scores = F.linear(states, self.item_table)
        if self.item_bias is not None:  # apart from the product, which is quantized
            scores = scores + self.item_bias
        cold_start = torch.arange(len(self.item_table), 0, -1, dtype=torch.float32)
        scores = torch.where(n_events[:, None] > 0, scores, cold_start)
        # Padding refers to the first item with +inf, which has no effect on the minimum.
        lowered = torch.where(exclude > 0, -torch.inf, torch.inf)
        masked = scores.scatter_reduce(1, (exclude - 1).clamp(min=0), lowered, reduce="amin")
        n_best = cast(int, k.item())
        torch._check(n_best >= 1)
        torch._check(n_best <= len(self.item_table))
        top_scores, top_columns = torch.topk(masked, n_best, dim=1)
        return top_columns + 1, top_scores, scores


def _check_active(active: Sequence[int], n_items: int) -> None:
    if not active or min(active) < 1 or max(active) > n_items or len(set(active)) < len(active):
        msg = (
            f"active has {len(active)} entries; expected distinct item_idx between 1 and "
            f"{n_items}, at least one."
        )
        raise ValueError(msg)


def _folds(node: ir.Node) -> bool | None:
    """Whether a node becomes a constant: as usual (None), but not a range over the catalogue."""
    if node.op_type != "Range":
        return None
    (length,) = node.outputs[0].shape or (None,)
    return False if isinstance(length, int) and length > _LONGEST_RANGE else None


@contextmanager
def _quiet_exporter() -> Generator[None]:
    """Hide messages of the exporter of torch 2.13: a deprecated call in torch, no torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)


def _name_sizes(proto: onnx.ModelProto) -> None:
    """Name the open sizes as in the module docstring.

    Raises:
        ValueError: The exporter has fixed one as a constant, which it does silently.
    """
    values = {value.name: value for value in [*proto.graph.input, *proto.graph.output]}
    for name, sizes in _OPEN_SIZES:
        for axis, size in enumerate(sizes):
            dim = values[name].type.tensor_type.shape.dim[axis]
            if dim.HasField("dim_value"):
                if size == "k" and dim.dim_value == 1:  # the only k of a catalogue with one item
                    continue
                msg = f"Export fixed the {size} of {name} to {dim.dim_value}; it must stay open."
                raise ValueError(msg)
            dim.dim_param = size


def _clean(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what differs between runs: source paths, stack traces and doc strings."""
    graph = proto.graph
    del proto.metadata_props[:]
    del graph.metadata_props[:]
    graph.doc_string = ""
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node]
    for value in values:
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.value_info[:]
    _share_constants(proto)
    return proto


def _share_constants(proto: onnx.ModelProto) -> None:
    """Store equal constants once: the exporter transposes a layer's weights for each use."""
    graph = proto.graph
    kept: dict[tuple[Any, ...], onnx.TensorProto] = {}
    names: dict[str, str] = {}
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        same = kept.setdefault((tensor.data_type, value.shape, value.tobytes()), tensor)
        names[tensor.name] = same.name
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    tensors = list(kept.values())
    del graph.initializer[:]
    graph.initializer.extend(tensors)
