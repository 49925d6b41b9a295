"""Windows of training histories: fixed ranges of events, so that labels can be stored for them.

A teacher's answer depends on the events that it reads. A student that reads other events than its
teacher did learns from answers to other questions (Beyer et al. 2022, arXiv:2106.05237). So soft
labels are written for the very windows that the student is trained on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories


class Windows(NamedTuple):
    """Ranges of events, user after user, a user's oldest window first.

    A window of n events holds n - 1 positions: its last event is a target only.

    Attributes:
        users: Row of each window's user.
        starts: First event.
        ends: One behind the last event.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of positions of each window."""
        return self.ends - self.starts - 1


def training_windows(
    histories: ResidentHistories, max_length: int, newest: int | None = None
) -> Windows:
    """The windows that cover the training events of every user.

    The newest window ends with the newest event. Each earlier one begins half a window before, so
    that most positions are read after at least half a window of events; the oldest one begins with
    the user's first event.

    Args:
        histories: The training events.
        max_length: Most positions of a window.
        newest: Only as many windows as hold this many newest positions of a user; None: all.

    Example:
        A user with seven events, read three positions at a time.

        >>> import polars as pl
        >>> one = np.ones(7)
        >>> user = ResidentHistories(pl.Series(["a"]), one, one, one, one, np.array([0, 7]))
        >>> windows = training_windows(user, 3)
        >>> list(zip(windows.starts.tolist(), windows.ends.tolist()))
        [(0, 4), (1, 5), (2, 6), (3, 7)]
    """
    stride = max(1, max_length // 2)
    n_positions = np.maximum(histories.lengths - 1, 0)
    beyond = np.maximum(n_positions - max_length, 0)
    n_windows = np.where(n_positions > 0, 1 + -(-beyond // stride), 0)
    if newest is not None:
        n_windows = np.minimum(n_windows, 1 + -(-np.maximum(newest - max_length, 0) // stride))
    users = np.repeat(np.arange(len(n_windows)), n_windows)
    older = np.repeat(np.cumsum(n_windows), n_windows) - 1 - np.arange(len(users))
    starts = np.maximum(beyond[users] - stride * older, 0)
    ends = np.minimum(starts + max_length, n_positions[users]) + 1
    first = histories.starts[users]
    return Windows(users, first + starts, first + ends)
