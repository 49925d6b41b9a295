# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""What is known of a history's events besides their items: their kinds and times."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

N_KINDS = 128
"""Codes that a kind of event may have."""

N_GAP_BUCKETS = 32
"""Gaps of a second, two, four … up to decades."""

_MICROSECONDS = 1_000_000


class Context(NamedTuple):
    """Kinds and times of right-padded histories, oldest event first.

    Attributes:
        kinds: Code of each event's kind.
        times: When each event was, in microseconds since 1970.
    """

    kinds: Int[Tensor, "batch length"]
    times: Int[Tensor, "batch length"]

    def to(self, device: torch.device) -> "Context":
        """On a device."""
        return Context(self.kinds.to(device), self.times.to(device))


def gap_buckets(times: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length length"]:
    """Bucket of the time from each event (column) to each later one (row): log2(1 + seconds).

    An event looks back from its own time, never from that of the event it is to predict.
    """
    seconds = (times[:, :, None] - times[:, None, :]).clamp(min=0) // _MICROSECONDS
    return torch.log2(1 + seconds.double()).long().clamp(max=N_GAP_BUCKETS - 1)
