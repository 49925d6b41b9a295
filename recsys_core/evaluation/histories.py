"""Histories to be scored: views of shared events, so a user with many cases costs them once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


@dataclass(frozen=True)
class Histories(Sequence[IntArray]):
    """A sequence of histories, each an array of item_idx, oldest first.

    Attributes:
        items: item_idx of all events.
        kinds: Code of each event's kind.
        times: When each event was, in microseconds since 1970.
        begins: Where each history begins among the events.
        ends: Where each ends.
    """

    items: IntArray
    kinds: NDArray[np.int8]
    times: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def whole(cls, users: pl.DataFrame) -> "Histories":
        """All events of some rows of a bucket file: a history a user."""
        items, kinds, times = (
            users[name].explode(empty_as_null=False).to_numpy()
            for name in ("item_idx", "event_type", "timestamp")
        )
        ends = users["item_idx"].list.len().to_numpy().cumsum(dtype=np.int64)
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        return cls(items, kinds, times, begins, ends)

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, index: int) -> IntArray: ...
    @overload
    def __getitem__(self, index: slice) -> "Histories": ...
    def __getitem__(self, index: int | slice) -> "IntArray | Histories":
        begins, ends = self.begins[index], self.ends[index]
        if isinstance(index, slice):
            return replace(self, begins=begins, ends=ends)
        return self.items[begins:ends]

    def of_kinds(self) -> list[NDArray[np.int8]]:
        """The kinds of each history's events."""
        return [self.kinds[begin:end] for begin, end in self._spans()]

    def of_times(self) -> list[NDArray[np.int64]]:
        """The times of each history's events."""
        return [self.times[begin:end] for begin, end in self._spans()]

    def where(self, keep: Callable[[IntArray], NDArray[np.bool_]]) -> "Histories":
        """The same histories with some of their events only."""
        rows = np.concatenate(
            [np.empty(0, np.int64), *(np.arange(begin, end) for begin, end in self._spans())]
        )
        kept = keep(self.items[rows])
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        ends = np.cumsum(self.ends - self.begins)
        rows = rows[kept]
        return Histories(
            self.items[rows],
            self.kinds[rows],
            self.times[rows],
            before[ends - (self.ends - self.begins)],
            before[ends],
        )

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self.begins.tolist(), self.ends.tolist(), strict=True))
