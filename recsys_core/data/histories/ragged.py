"""Lists of unequal length in one flat array."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Ragged(Generic[Scalar]):
    """A list column laid out flat: row r is `values[offsets[r]:offsets[r + 1]]`.

    Attributes:
        values: The values of all rows, one row after the other.
        offsets: `[rows + 1]`, where each row begins; the last entry is the number of values.
    """

    values: NDArray[Scalar]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, column: pl.Series) -> "Ragged[Any]":
        """Lay a column of lists out flat; an empty list is an empty row.

        >>> lists = Ragged.of(pl.Series([[7, 8], [], [9]]))
        >>> lists.values.tolist(), lists.offsets.tolist()
        ([7, 8, 9], [0, 2, 2, 3])
        >>> lists.rows.tolist(), lists.positions.tolist()
        ([0, 0, 2], [0, 1, 0])
        """
        offsets = np.zeros(len(column) + 1, np.int64)
        np.cumsum(column.list.len().to_numpy(), out=offsets[1:])
        return Ragged(column.explode(empty_as_null=False).to_numpy(), offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`[rows]` number of values of each row."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """`[values]` row of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    @property
    def positions(self) -> NDArray[np.int64]:
        """`[values]` place of each value within its row, from 0."""
        return np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)


def first_in_row(items: Ragged[np.int32]) -> NDArray[np.bool_]:
    """Whether each value is the first of its kind in its row: the rule of what is not yet seen.

    >>> first_in_row(Ragged.of(pl.Series([[7, 8, 7], [7]]))).tolist()
    [True, True, False, True]
    """
    keys = items.rows * (int(items.values.max(initial=0)) + 1) + items.values
    _, firsts = np.unique(keys, return_index=True)
    is_first = np.zeros(len(keys), np.bool_)
    is_first[firsts] = True
    return is_first
