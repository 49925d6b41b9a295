# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""The kinds and times of a history's events."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

N_KINDS = 128
"""Number of codes for event kinds."""

N_GAP_BUCKETS = 32
"""Number of buckets for time gaps: one second, two, four … up to decades."""

_MICROSECONDS = 1_000_000


class Context(NamedTuple):
    """Kinds and times of right-padded histories, oldest event first.

    Attributes:
        kinds: Code of each event's kind.
        times: Time of each event, in microseconds since 1970.
    """

    kinds: Int[Tensor, "batch length"]
    times: Int[Tensor, "batch length"]

    def to(self, device: torch.device) -> "Context":
        """A copy on a device."""
        return Context(self.kinds.to(device), self.times.to(device))


def gap_buckets(times: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length length"]:
    """Bucket of the time from each event (column) to each later one (row): log2(1 + seconds).

    Gaps end at the event's own time, never at that of the event to predict, so nothing leaks.
    """
    seconds = (times[:, :, None] - times[:, None, :]).clamp(min=0) // _MICROSECONDS
    return torch.log2(1 + seconds.double()).long().clamp(max=N_GAP_BUCKETS - 1)
