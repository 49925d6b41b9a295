"""What a terminal shows of a night: Prefect's log without tracebacks."""

import copy
import logging

from prefect.logging.handlers import PrefectConsoleHandler


class WithoutTraceback(logging.Formatter):
    """Another formatter's lines without tracebacks.

    Other handlers of the same record, such as the one for the Prefect UI, keep theirs.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line that the other formatter makes of the record without its exception."""
        plain = copy.copy(record)
        plain.exc_info = plain.exc_text = None
        return self._inner.format(plain)


def keep_tracebacks_off_the_console() -> None:
    """Let the terminal show sentences; tracebacks stay in the Prefect UI."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and handler.formatter:
            handler.setFormatter(WithoutTraceback(handler.formatter))
