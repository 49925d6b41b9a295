"""The terminal's log lines."""

import logging
import sys

from flows.cli.log_format import WithoutTraceback


def record_of_a_failure() -> logging.LogRecord:
    try:
        raise ValueError("the cause")
    except ValueError:
        return logging.LogRecord("x", logging.ERROR, "", 0, "it failed", (), sys.exc_info())


def test_the_terminal_gets_the_line_and_others_keep_the_traceback() -> None:
    record, plain = record_of_a_failure(), logging.Formatter("%(message)s")

    assert "Traceback" in plain.format(record)
    assert WithoutTraceback(plain).format(record) == "it failed"
    assert "Traceback" in plain.format(record)
