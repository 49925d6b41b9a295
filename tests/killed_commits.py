"""A process that dies at a commit to the lake."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """Like kill -9 for what comes after: no handler of the product catches it."""


@contextmanager
def killed_at_commit(
    number: int, *, committed: bool, commits: Sequence[tuple[type, str]]
) -> Iterator[None]:
    """Raise `Killed` at a commit: just after it, or just before it.

    Args:
        number: Which commit, from 1; 0 for none.
        committed: Die after it.
        commits: Class and method of everything that commits.
    """
    left = number

    def dying(commit: Callable[..., Any]) -> Callable[..., Any]:
        def dying_commit(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not committed:
                raise Killed
            done = commit(*arguments, **options)
            if left == 0:
                raise Killed
            return done

        return dying_commit

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in commits:
            patch.setattr(owner, name, dying(getattr(owner, name)))
        yield
