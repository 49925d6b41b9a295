"""The log of a night on a terminal: Prefect's log without tracebacks."""

import copy
import logging

from prefect.logging.handlers import PrefectConsoleHandler


class WithoutTraceback(logging.Formatter):
    """Formats records as another formatter does, without tracebacks.

    Other handlers of the same record, such as the one for the Prefect UI, keep theirs.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The other formatter's line for the record without its exception."""
        plain = copy.copy(record)
        plain.exc_info = plain.exc_text = None
        return self._inner.format(plain)


def keep_tracebacks_off_the_console() -> None:
    """Hide tracebacks on the terminal; the Prefect UI still shows them."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and handler.formatter:
            handler.setFormatter(WithoutTraceback(handler.formatter))
