"""Helpers for the output of commands."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Column

console = Console()
errors = Console(stderr=True)


def say(line: str) -> None:
    """Print a line without wrapping or colour, so that addresses and paths can be copied."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def warn(line: str) -> None:
    """Print a line as `say` does, to standard error."""
    errors.print(line, soft_wrap=True, markup=False, highlight=False)


def numbers(*names: str) -> list[Column]:
    """Right-aligned table columns with these headings."""
    return [Column(name, justify="right") for name in names]


def today(timezone: str) -> date:
    """Today's date in a time zone."""
    return datetime.now(ZoneInfo(timezone)).date()


@contextmanager
def share_bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """A progress bar for work that reports a fraction and a message; hidden outside a terminal."""
    from rich.progress import Progress

    with Progress(transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task(title, total=1.0)
        yield lambda share, text: bars.update(bar, completed=share, description=text)
