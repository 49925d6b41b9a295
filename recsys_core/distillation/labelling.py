# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Write soft labels: the teacher's states at all positions of the windows of training.

Where the student's training draws its candidates, a label also holds the items that the teacher
ranks first, so that they can be among them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.histories.windows import Windows, training_windows
from recsys_core.data.soft_labels.factorized import LabelRows, write_labels
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.models.ensemble import AnyRecommender
from recsys_core.training.batch import earlier_items, event_context
from recsys_core.training.losses.chunked import chunks
from recsys_core.training.losses.seen import NO_CANDIDATE, SeenItems

_PART_POSITIONS = 65_536
_LOGITS = 2**26  # a quarter of a gigabyte at once


class TopItems(NamedTuple):
    """Which items are stored beside each state: those that the teacher ranks first.

    Attributes:
        k: How many.
        is_candidate: `[n_items + 1]`, the items that compete in the student's training.
        exclude_seen: Whether the items of the history don't.
    """

    k: int
    is_candidate: NDArray[np.bool_]
    exclude_seen: bool


def label_bucket(
    model: AnyRecommender,
    bucket: Path,
    path: Path,
    *,
    max_length: int | None = None,
    newest: int | None = None,
    batch_size: int = 128,
    top: TopItems | None = None,
) -> int:
    """Write the teacher's states for the training windows of one bucket of histories.

    Args:
        model: The teacher.
        bucket: File of histories.
        path: File of labels to write.
        max_length: Longest window of the student, in events; None: that of the teacher.
        newest: Only as many windows as hold this many newest positions of a user; None: all.
        batch_size: Windows encoded at once.
        top: Which items are stored beside each state. They take a product of every state with all
            item vectors. None: none.

    Returns:
        The number of labels.

    Raises:
        ValueError: The student's windows are longer than the teacher can read.
    """
    max_length = max_length or model.max_length
    if max_length > model.max_length:
        msg = (
            f"The student reads windows of {max_length} events, its teacher only "
            f"{model.max_length}. Set student.model.max_length no larger than the teacher's."
        )
        raise ValueError(msg)
    histories = read_training_histories([bucket])
    windows = training_windows(histories, max_length, newest)
    parts = _label_rows(model, histories, windows, batch_size, top)
    return write_labels(path, model.width, parts, top_k=top and top.k)


def _label_rows(
    model: AnyRecommender,
    histories: ResidentHistories,
    windows: Windows,
    batch_size: int,
    top: TopItems | None,
) -> Iterator[LabelRows]:
    """The labels of all windows in their order, about `_PART_POSITIONS` at a time."""
    hashes = prefix_hashes(histories.items, histories.starts)
    with torch.inference_mode():
        item_vectors = model.item_vectors()
        for part in _parts(windows):
            window = np.repeat(np.arange(len(part.lengths)), part.lengths)
            before = np.cumsum(part.lengths) - part.lengths
            events = part.starts[window] + np.arange(len(window)) - before[window]
            users = part.users[window]
            first = histories.starts[users]
            yield LabelRows(
                histories.user_ids.gather(pl.Series(users)),
                (part.starts[window] - first).astype(np.int32),
                (events - first).astype(np.int32),
                hashes[events],
                *_states(model, item_vectors, histories, part, batch_size, top),
            )


def _parts(windows: Windows) -> Iterator[Windows]:
    ends = np.cumsum(windows.lengths)
    start = 0
    while start < len(ends):
        done = ends[start] - windows.lengths[start]
        stop = max(start + 1, int(np.searchsorted(ends, done + _PART_POSITIONS, side="right")))
        yield Windows(*(part[start:stop] for part in windows))
        start = stop


def _states(
    model: AnyRecommender,
    item_vectors: Tensor,
    histories: ResidentHistories,
    windows: Windows,
    batch_size: int,
    top: TopItems | None,
) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
    """The teacher's states and top items at the positions of windows: `[positions, …]`."""
    device, n_positions = model.device, int(windows.lengths.sum())
    states = np.empty((n_positions, model.width), np.float32)
    top_ids = None if top is None else np.empty((n_positions, top.k), np.int32)
    first_rows = np.cumsum(windows.lengths) - windows.lengths
    by_length = np.argsort(windows.lengths, kind="stable")
    for i in range(0, len(by_length), batch_size):
        chosen = by_length[i : i + batch_size]
        places = np.arange(windows.lengths[chosen].max())
        valid = places < windows.lengths[chosen, None]
        events = np.where(valid, windows.starts[chosen, None] + places, 0)
        items = np.where(valid, histories.items[events], 0)
        history = torch.from_numpy(items.astype(np.int64)).to(device)
        context = event_context(histories, events).to(device) if model.reads_context else None
        encoded = model.encode(history, item_vectors, context)[history > 0].float()
        rows = (first_rows[chosen, None] + places)[valid]
        states[rows] = encoded.cpu().numpy()
        if top is not None and top_ids is not None:
            seen = None
            if top.exclude_seen:
                earlier = earlier_items(histories, windows.starts[chosen]).to(device)
                seen = SeenItems(history, history, earlier)
            top_ids[rows] = _top_ids(encoded, item_vectors, top, seen).cpu().numpy()
    return states, top_ids


def _top_ids(
    states: Float[Tensor, "positions width"],
    item_vectors: Float[Tensor, "items_and_padding width"],
    top: TopItems,
    seen: SeenItems | None,
) -> Int[Tensor, "positions k"]:
    """The candidates with the highest scores, best first, a few positions at a time."""
    vectors = item_vectors[1:]
    is_none = ~torch.from_numpy(top.is_candidate[1:]).to(states.device)
    ids = torch.zeros(len(states), top.k, dtype=torch.int32, device=states.device)
    k = min(top.k, len(vectors))
    for rows, logits in chunks(states, len(vectors), max(1, _LOGITS // len(vectors))):
        torch.mm(states[rows], vectors.T, out=logits)
        logits.masked_fill_(is_none, NO_CANDIDATE)
        if seen is not None:
            seen.mask(logits, rows)
        values, columns = logits.topk(k, dim=1)
        ids[rows, :k] = torch.where(values > NO_CANDIDATE, columns + 1, 0).int()
    return ids
