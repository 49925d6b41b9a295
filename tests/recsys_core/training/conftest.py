"""Fixtures of the tests of training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.recsys_core.training.numbered_histories import LENGTHS


@pytest.fixture
def buckets(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> list[Path]:
    user = 0
    users: list[list[tuple[str, list[int], int, int]]] = []
    for lengths in LENGTHS:
        users.append([])
        for length in lengths:
            items = [100 * user + place + 1 for place in range(length + 2)]
            users[-1].append((f"u{user:02d}", items, length, length + 1))
            user += 1
    return write_buckets(tmp_path / "histories", users)
