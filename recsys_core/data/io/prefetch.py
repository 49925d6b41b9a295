"""Prefetching: the next item is computed while the last one is used."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each computed in another thread while the one before is used.

    At most two items exist at a time.

    Example:
        >>> list(one_ahead(n * n for n in range(4)))
        [0, 1, 4, 9]
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(next, items, end)
        while (item := pending.result()) is not end:
            pending = pool.submit(next, items, end)
            yield item  # pyright: ignore[reportReturnType] - not the end
