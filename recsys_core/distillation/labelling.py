# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Write soft labels: the teacher's states at the positions of all histories, by windows."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.soft_labels import prefix_hashes, write_labels
from recsys_core.models.ensemble import AnyRecommender
from recsys_core.training.batching import event_context


class _Windows(NamedTuple):
    """Ranges of events, and the first position of each that it labels."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    label_from: NDArray[np.int64]


def label_bucket(
    model: AnyRecommender,
    bucket: Path,
    path: Path,
    *,
    newest: int | None = None,
    batch_size: int = 128,
) -> int:
    """Write the teacher's states for the training positions of one bucket of histories.

    Every position before another training event gets a label. Histories longer than the teacher's
    window are read in windows that overlap by half, so each label is based on at least half a
    window of history.

    Args:
        model: The teacher.
        bucket: File of histories.
        path: File of labels to write.
        newest: Number of each user's newest positions to label; None: all.
        batch_size: Windows encoded at once.

    Returns:
        The number of labels.
    """
    histories = read_training_histories([bucket])
    windows = label_windows(histories, model.max_length, newest)
    parts = list(_label_states(model, histories, windows, batch_size))
    events = np.concatenate([part.events for part in parts])
    order = np.argsort(events)
    events = events[order]
    window_starts = np.concatenate([part.window_starts for part in parts])[order]
    states = np.concatenate([part.states for part in parts])[order]
    users = np.searchsorted(histories.starts, events, side="right") - 1
    write_labels(
        path,
        user_ids=histories.user_ids.gather(pl.Series(users)),
        positions=(events - histories.starts[users]).astype(np.int32),
        window_starts=(window_starts - histories.starts[users]).astype(np.int32),
        hashes=prefix_hashes(histories.items, histories.starts)[events],
        states=states,
    )
    return len(events)


def label_windows(
    histories: ResidentHistories, max_length: int, newest: int | None = None
) -> _Windows:
    """Windows that label each position once, sorted by length.

    A user's last training event has no label, because the next event is held out.
    """
    starts: list[NDArray[np.int64]] = []
    ends: list[NDArray[np.int64]] = []
    label_from: list[NDArray[np.int64]] = []
    stride = max(1, max_length // 2)
    n_positions = histories.lengths - 1
    first_label = 0 if newest is None else np.maximum(n_positions - newest, 0)
    begin = np.zeros(len(n_positions), np.int64)
    labelled = np.zeros(len(n_positions), np.int64) + first_label
    while (open_users := np.flatnonzero(labelled < n_positions)).size:
        end = np.minimum(begin + max_length, n_positions)
        useful = open_users[end[open_users] > labelled[open_users]]
        offset = histories.starts[useful]
        starts.append(begin[useful] + offset)
        ends.append(end[useful] + offset)
        label_from.append(labelled[useful] + offset)
        labelled[useful] = end[useful]
        begin[open_users] += stride
    if not starts:
        return _Windows(*(np.empty(0, np.int64) for _ in range(3)))
    windows = _Windows(*(np.concatenate(parts) for parts in (starts, ends, label_from)))
    order = np.argsort(windows.ends - windows.starts, kind="stable")
    return _Windows(*(part[order] for part in windows))


class _Labels(NamedTuple):
    events: NDArray[np.int64]
    window_starts: NDArray[np.int64]
    states: NDArray[np.float32]


def _label_states(
    model: AnyRecommender, histories: ResidentHistories, windows: _Windows, batch_size: int
) -> Iterator[_Labels]:
    """States of the positions that each batch of windows labels."""
    device = model.device
    no_events = np.empty(0, np.int64)
    yield _Labels(no_events, no_events, np.empty((0, model.width), np.float32))
    with torch.inference_mode():
        item_vectors = model.item_vectors()
        for first in range(0, len(windows.starts), batch_size):
            starts, ends, label_from = (part[first : first + batch_size, None] for part in windows)
            events = starts + np.arange((ends - starts).max())
            valid = events < ends
            inside = np.where(valid, events, 0)
            history = np.where(valid, histories.items[inside], 0)
            context = event_context(histories, inside).to(device) if model.reads_context else None
            states = model.encode(
                torch.from_numpy(history.astype(np.int64)).to(device), item_vectors, context
            )
            chosen = valid & (events >= label_from)
            yield _Labels(
                events[chosen],
                np.broadcast_to(starts, events.shape)[chosen],
                states.float().cpu().numpy()[chosen],
            )
