"""Files from the web: streamed into a draft, continued where an earlier call stopped."""

import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where the server says it, those of the whole file."""

TIMEOUT_SECONDS = 30.0
_PIECE_BYTES = 1 << 18
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416


class DownloadError(RuntimeError):
    """A file could not be downloaded; the message says why and what to do."""


def download(
    url: str,
    draft: Path,
    *,
    largest_bytes: int,
    progress: Progress,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Bring a file into a draft; what the draft holds already is not downloaded again.

    A server that can't continue in the middle sends the whole file, which replaces the draft.
    Whether the draft is what it should be, the caller has to check.

    Args:
        url: The file.
        draft: Where to. After a failure it holds what has come, for the next call.
        largest_bytes: More than this is refused.
        progress: Told after each piece.
        timeout_seconds: Longest silence of the server.

    Raises:
        DownloadError: No or another answer, a silent server, a broken connection, too many bytes.
        OSError: The draft can't be written.
    """
    have = draft.stat().st_size if draft.is_file() else 0
    answer = _open(url, have, timeout_seconds)
    if answer is None:
        return
    with answer:
        start, total = _extent(url, answer, have)
        done = start
        with draft.open("ab" if start else "wb") as stream:
            for piece in _pieces(url, answer):
                done += len(piece)
                if done > largest_bytes:
                    msg = (
                        f"{url} is larger than the {largest_bytes:,} bytes that were expected at "
                        "most; the download was stopped. Download the file by other means."
                    )
                    raise DownloadError(msg)
                stream.write(piece)
                progress(done, total)
    # Python does not complain of a connection that ends early when it reads in pieces.
    if total is not None and done < total:
        raise DownloadError(_lost(url, f"it ended after {done:,} of {total:,} bytes"))


def read_text(url: str, *, largest_bytes: int, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """The beginning of a small text file on the web.

    Raises:
        DownloadError: As `download` does.
    """
    answer = _open(url, 0, timeout_seconds)
    assert answer is not None, "only a request for a later part can have no answer"
    with answer:
        try:
            return answer.read(largest_bytes).decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise DownloadError(_lost(url, _reason(error))) from error


class HttpsStaysHttps(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but never from an encrypted connection to an open one."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to follow with.

        Raises:
            DownloadError: It would leave https.
        """
        if req.type == "https" and not newurl.lower().startswith("https:"):
            fp.close()
            text = (
                f"{req.full_url} leads to {newurl}, which is not encrypted; it was not followed. "
                "Download the file by other means."
            )
            raise DownloadError(text)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, have: int, timeout_seconds: float) -> HTTPResponse | None:
    """The server's answer with what comes after `have` bytes; None where nothing comes."""
    headers = {"User-Agent": "recdistill", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - from our own table
    try:
        return urllib.request.build_opener(HttpsStaysHttps).open(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE and have:
            return None
        msg = (
            f"{url}: the server answered {error.code} ({error.reason}), not with the file. "
            "Try again later, or download it by other means and give it with --file."
        )
        raise DownloadError(msg) from error
    except (OSError, HTTPException) as error:
        raise DownloadError(_unreachable(url, error)) from error


def _extent(url: str, answer: HTTPResponse, have: int) -> tuple[int, int | None]:
    """The byte that the answer begins with, and the size of the whole file if it is said."""
    start = 0
    if answer.status == _PARTIAL:
        stated = answer.headers.get("Content-Range", "")
        part = re.match(r"bytes (\d+)-", stated)
        if part is None or int(part[1]) != have:
            msg = (
                f"{url}: the server was asked for what follows byte {have:,} and sent {stated!r}. "
                "Download the file by other means and give it with --file."
            )
            raise DownloadError(msg)
        start = have
    length = answer.headers.get("Content-Length", "")
    return start, start + int(length) if length.isdigit() else None


def _pieces(url: str, answer: HTTPResponse) -> Iterator[bytes]:
    """What the server sends, its failures told apart from those of writing."""
    while True:
        try:
            piece = answer.read1(_PIECE_BYTES)
        except (OSError, HTTPException) as error:
            raise DownloadError(_lost(url, _reason(error))) from error
        if not piece:
            return
        yield piece


def _lost(url: str, reason: str) -> str:
    return (
        f"The connection to {url} was lost ({reason}). Run the same command again: it continues "
        "where this one stopped."
    )


def _unreachable(url: str, error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"{url}: the server's certificate is not valid ({reason.verify_message}), so nothing "
            "was downloaded. Try again later, or download the file by other means and give it with "
            "--file; its checksum is compared all the same."
        )
    return (
        f"{url} can't be reached ({_reason(error)}). Check the connection, or download the file on "
        "another machine and give it with --file."
    )


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    return str(inner or error) or type(error).__name__
