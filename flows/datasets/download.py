"""Downloads with a bound on the size; an https address is never left for an unencrypted one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and, where the server states it, the size of the file."""

TIMEOUT_SECONDS = 30.0
_PIECE_BYTES = 1 << 18


class DownloadError(RuntimeError):
    """A file could not be downloaded; the message says why and what to do."""


def download(
    url: str,
    path: Path,
    *,
    largest_bytes: int,
    progress: Progress,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Download a file. The caller checks that its content is the expected one.

    Args:
        url: The file's address.
        path: The file to write; after a failure it may hold a part.
        largest_bytes: A larger file is refused.
        progress: Called after each piece.
        timeout_seconds: Longest silence of the server.

    Raises:
        DownloadError: The server can't be reached, answers with an error, falls silent, breaks off,
            leads to an unencrypted address or sends too much.
        OSError: The file can't be written.
    """
    done = 0
    with _answer(url, timeout_seconds) as answer, path.open("wb") as stream:
        length = answer.headers.get("Content-Length", "")
        for piece in answer.iter_content(_PIECE_BYTES):
            done += len(piece)
            if done > largest_bytes:
                msg = (
                    f"{url} is larger than the {largest_bytes:,} bytes that were expected at "
                    "most; the download was stopped. Download the file by other means."
                )
                raise DownloadError(msg)
            stream.write(piece)
            progress(done, int(length) if length.isdigit() else None)


def read_text(url: str, *, largest_bytes: int, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """The beginning of a small text file on the web.

    Raises:
        DownloadError: As `download` does.
    """
    with _answer(url, timeout_seconds) as answer:
        return next(answer.iter_content(largest_bytes), b"").decode(errors="replace")


def https_stays_https(answer: requests.Response, *_: Any, **__: Any) -> None:
    """Refuse a redirect from an encrypted address to an unencrypted one.

    Raises:
        DownloadError: The answer is such a redirect.
    """
    target = urljoin(answer.url, answer.headers.get("Location", ""))
    if answer.url.startswith("https:") and not target.lower().startswith("https:"):
        msg = (
            f"{answer.url} leads to {target}, which is not encrypted; it was not followed. "
            "Download the file by other means."
        )
        raise DownloadError(msg)


@contextmanager
def _answer(url: str, timeout_seconds: float) -> Iterator[requests.Response]:
    """The server's answer; an error here or while it is read becomes a DownloadError."""
    advice = "or download the file by other means and give it with --file."
    try:
        with requests.get(
            url,
            headers={"User-Agent": "recdistill", "Accept-Encoding": "identity"},
            hooks={"response": https_stays_https},
            stream=True,
            timeout=timeout_seconds,
        ) as answer:
            if not answer.ok:
                status = f"{answer.status_code} ({answer.reason})"
                msg = f"{url}: the server answered {status}, not with the file. Try later, {advice}"
                raise DownloadError(msg)
            yield answer
    except requests.RequestException as error:
        msg = (
            f"{url} could not be downloaded ({_first_cause(error)}). Check the connection and run "
            f"the same command again, {advice}"
        )
        raise DownloadError(msg) from error


def _first_cause(error: BaseException) -> BaseException:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error
