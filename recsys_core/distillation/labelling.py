# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Write soft labels: the teacher's states at all positions of the windows of training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.histories.windows import Windows, training_windows
from recsys_core.data.soft_labels.factorized import LabelRows, write_labels
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.models.ensemble import AnyRecommender
from recsys_core.training.batching import event_context

_PART_POSITIONS = 65_536


def label_bucket(
    model: AnyRecommender,
    bucket: Path,
    path: Path,
    *,
    max_length: int | None = None,
    newest: int | None = None,
    batch_size: int = 128,
) -> int:
    """Write the teacher's states for the training windows of one bucket of histories.

    Args:
        model: The teacher.
        bucket: File of histories.
        path: File of labels to write.
        max_length: Longest window of the student, in events; None: that of the teacher.
        newest: Only as many windows as hold this many newest positions of a user; None: all.
        batch_size: Windows encoded at once.

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
    parts = _label_rows(model, histories, windows, batch_size)
    return write_labels(path, model.width, parts)


def _label_rows(
    model: AnyRecommender, histories: ResidentHistories, windows: Windows, batch_size: int
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
                _states(model, item_vectors, histories, part, batch_size),
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
    item_vectors: torch.Tensor,
    histories: ResidentHistories,
    windows: Windows,
    batch_size: int,
) -> NDArray[np.float32]:
    """The teacher's states at the positions of windows, `[positions, width]`."""
    device = model.device
    states = np.empty((int(windows.lengths.sum()), model.width), np.float32)
    first_rows = np.cumsum(windows.lengths) - windows.lengths
    by_length = np.argsort(windows.lengths, kind="stable")
    for i in range(0, len(by_length), batch_size):
        chosen = by_length[i : i + batch_size]
        places = np.arange(windows.lengths[chosen].max())
        valid = places < windows.lengths[chosen, None]
        events = np.where(valid, windows.starts[chosen, None] + places, 0)
        history = np.where(valid, histories.items[events], 0)
        context = event_context(histories, events).to(device) if model.reads_context else None
        encoded = model.encode(
            torch.from_numpy(history.astype(np.int64)).to(device), item_vectors, context
        )
        rows = first_rows[chosen, None] + places
        states[rows[valid]] = encoded.float().cpu().numpy()[valid]
    return states
