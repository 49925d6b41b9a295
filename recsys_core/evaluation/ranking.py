"""Where a model ranks each held-out event among the full catalogue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.evaluation.histories import Histories, IntArray
from recsys_core.settings import Progress, silent

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]

Ranker = Callable[[Sequence[IntArray]], FloatArray]
"""Scores the whole catalogue after each history.

Takes histories (item_idx, oldest first, full length, possibly empty), returns scores `[batch,
n_items + 1]` by item_idx (column 0 is ignored). An item that the model lacks scores -inf.
"""

Split = Literal["validation", "test"]

_LISTS = ("item_idx", "target_weight", "event_type", "timestamp")


@dataclass(frozen=True)
class Cases:
    """Held-out events to rank, in the order of users and positions.

    Attributes:
        user_id: User of each case.
        positions: Place of the target among the user's events, from 0.
        targets: item_idx of the target.
        histories: The user's events before the target.
        train_lengths: How many of the user's events were training events.
        dropped: Events of the window that are no cases, by reason: "seen" (the target was in the
            history already), "not_candidate" (it was not in the catalogue then).
    """

    user_id: list[str]
    positions: IntArray
    targets: IntArray
    histories: Sequence[IntArray]
    train_lengths: IntArray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.user_id)


class Lists(NamedTuple):
    """A list column laid out flat: row r is `values[offsets[r]:offsets[r + 1]]`."""

    values: IntArray
    offsets: NDArray[np.int64]


def flatten_lists(column: pl.Series) -> Lists:
    """Lay a column of int32 lists out flat, empty lists included."""
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column.list.len().to_numpy(), out=offsets[1:])
    values = column.explode(empty_as_null=False).to_numpy().astype(np.int32, copy=False)
    return Lists(values, offsets)


def candidate_mask(items: pl.DataFrame, split: Split) -> BoolArray:
    """Which items may be recommended in a split's window.

    Args:
        items: The catalogue: `item_idx` 1 … n_items in order, `candidate_<split>`.
        split: Whose window.

    Returns:
        `[n_items + 1]` by item_idx; the padding is no candidate.

    Raises:
        ValueError: The rows are not those of item_idx 1 … n_items.
    """
    item_idx = items["item_idx"].to_numpy()
    if not np.array_equal(item_idx, np.arange(1, items.height + 1)):
        msg = f"items must hold item_idx 1 to {items.height} in order; prepare the data again."
        raise ValueError(msg)
    return np.concatenate([[False], items[f"candidate_{split}"].to_numpy()])


def read_cases(bucket: Path, items: pl.DataFrame, split: Split, *, exclude_seen: bool) -> Cases:
    """Read the cases of one bucket file of histories.

    Args:
        bucket: File of `recsys_core.data.histories.build.HISTORIES`.
        items: The catalogue, see `candidate_mask`.
        split: "validation" ranks the events [train_end, validation_end), "test" those after; of
            both only targets.
        exclude_seen: Drop events whose item is in the history: they can't be recommended.

    Returns:
        The cases; memory is proportional to the events of the users who have any.

    Raises:
        ValueError: A history holds an item that is not in the catalogue.
    """
    candidates = candidate_mask(items, split)
    first, last = {
        "validation": (pl.col("train_end"), pl.col("validation_end")),
        "test": (pl.col("validation_end"), pl.col("item_idx").list.len().cast(pl.Int32)),
    }[split]
    frame = (
        pl.scan_parquet(bucket)
        .select("user_id", *_LISTS, "train_end", first=first, last=last)
        .filter(pl.col("last") > pl.col("first"))
        .collect()
    )
    events, offsets = flatten_lists(frame["item_idx"])
    if events.size and not 1 <= events.min() <= events.max() <= items.height:
        msg = (
            f"{bucket} holds item_idx from {events.min()} to {events.max()} but the catalogue has "
            f"1 to {items.height}: they are of different runs. Prepare the data again."
        )
        raise ValueError(msg)

    starts, n_events = frame["first"].to_numpy(), (frame["last"] - frame["first"]).to_numpy()
    rows = np.repeat(np.arange(frame.height), n_events)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(n_events) - n_events, n_events)
    positions = (starts[rows] + within).astype(np.int32)
    targets = events[offsets[rows] + positions]

    weights, kinds, times = (
        frame[name].explode(empty_as_null=False).to_numpy() for name in _LISTS[1:]
    )
    asked = weights[offsets[rows] + positions] > 0
    seen = asked & ~_first_occurrence(events, offsets)[offsets[rows] + positions] & exclude_seen
    not_candidate = asked & ~seen & ~candidates[targets]
    kept = np.flatnonzero(asked & ~seen & ~not_candidate)
    begins = offsets[rows[kept]]
    return Cases(
        user_id=frame["user_id"].gather(rows[kept]).to_list(),
        positions=positions[kept],
        targets=targets[kept],
        histories=Histories(events, kinds, times, begins, begins + positions[kept]),
        train_lengths=frame["train_end"].to_numpy()[rows[kept]].astype(np.int32),
        dropped={"seen": int(seen.sum()), "not_candidate": int(not_candidate.sum())},
    )


def rank_targets(
    ranker: Ranker,
    cases: Cases,
    candidates: BoolArray,
    *,
    exclude_seen: bool,
    batch_size: int = 256,
    progress: Progress = silent,
) -> NDArray[np.int64]:
    """Rank each case's target among the candidates.

    Every doubt counts against the model: a tie ranks the target behind all that tie with it (a
    constant scorer comes last, not first), and so does an item whose score is NaN.

    Args:
        ranker: The model.
        cases: What to rank; the targets are candidates.
        candidates: `[n_items + 1]` by item_idx.
        exclude_seen: Leave the items of a case's history out of its ranking.
        batch_size: Cases scored at once; memory is a few times batch_size × n_items × 4 bytes.
        progress: Told after each batch.

    Returns:
        Ranks from 1; n_items + 1 where the target's own score is -inf or NaN.

    Raises:
        ValueError: The ranker's answer has another shape than `[batch, n_items + 1]`.
    """
    ranks = np.empty(len(cases), np.int64)
    for begin in range(0, len(cases), batch_size):
        end = min(begin + batch_size, len(cases))
        histories = cases.histories[begin:end]
        scores = ranker(histories)
        if scores.shape != (end - begin, len(candidates)):
            msg = (
                f"A ranker must score {end - begin} histories × {len(candidates)} items (column 0 "
                f"is the padding), got an array of shape {scores.shape}."
            )
            raise ValueError(msg)
        seen: Sequence[IntArray] = histories if exclude_seen else []
        ranks[begin:end] = _rank_batch(scores, cases.targets[begin:end], candidates, seen)
        progress(end / len(cases), f"{end:,} of {len(cases):,} cases ranked")
    return ranks


def _rank_batch(
    scores: FloatArray, targets: IntArray, candidates: BoolArray, seen: Sequence[IntArray]
) -> NDArray[np.int64]:
    rows = np.arange(len(targets))
    target_scores = scores[rows, targets]
    ahead = ~(scores < target_scores[:, None]) & candidates
    if seen:
        ahead[np.repeat(rows, [len(items) for items in seen]), np.concatenate(seen)] = False
    ahead[rows, targets] = False
    absent = np.isnan(target_scores) | np.isneginf(target_scores)
    return np.where(absent, len(candidates), 1 + np.count_nonzero(ahead, axis=1))


def _first_occurrence(values: IntArray, offsets: NDArray[np.int64]) -> BoolArray:
    """Which values are the first of their kind in their row."""
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    keys = rows * (int(values.max(initial=0)) + 1) + values
    _, firsts = np.unique(keys, return_index=True)
    is_first = np.zeros(len(values), np.bool_)
    is_first[firsts] = True
    return is_first
