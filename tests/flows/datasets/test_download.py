"""Downloads from a real server that answers, fails, stalls and hangs up."""

import errno
import threading
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request

import pytest

from flows.datasets.download import DownloadError, HttpsStaysHttps, download, read_text

if TYPE_CHECKING:
    from tests.flows.conftest import FileServer

BODY = bytes(range(256)) * 4000


def bring(url: str, draft: Path, *, largest: int = len(BODY)) -> list[tuple[int, int | None]]:
    """Download with a short patience; returns what the progress said."""
    said: list[tuple[int, int | None]] = []
    download(
        url,
        draft,
        largest_bytes=largest,
        progress=lambda done, total: said.append((done, total)),
        timeout_seconds=0.5,
    )
    return said


def test_a_file_arrives_whole_and_the_progress_ends_at_its_size(
    file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.files["/a.zip"] = BODY

    said = bring(f"{file_server.url}/a.zip", tmp_path / "draft")

    assert (tmp_path / "draft").read_bytes() == BODY
    assert said[-1] == (len(BODY), len(BODY))
    assert said == sorted(said)


def test_a_broken_download_is_continued_where_it_stopped(
    file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.files["/a.zip"] = BODY
    file_server.cut_after = 300_000
    draft = tmp_path / "draft"

    with pytest.raises(DownloadError, match=r"ended after 300,000 of 1,024,000 bytes.*again"):
        bring(f"{file_server.url}/a.zip", draft)
    assert draft.read_bytes() == BODY[:300_000]
    file_server.cut_after = None
    said = bring(f"{file_server.url}/a.zip", draft)

    assert draft.read_bytes() == BODY
    assert file_server.asked == [("/a.zip", None), ("/a.zip", "bytes=300000-")]
    assert said[0][0] > 300_000
    assert said[-1] == (len(BODY), len(BODY))


def test_a_server_that_can_not_continue_sends_all_of_it_again(
    file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.files["/a.zip"] = BODY
    file_server.ranges = False
    draft = tmp_path / "draft"
    draft.write_bytes(b"something older")

    bring(f"{file_server.url}/a.zip", draft)

    assert draft.read_bytes() == BODY


def test_a_draft_that_is_whole_already_stays(file_server: "FileServer", tmp_path: Path) -> None:
    file_server.files["/a.zip"] = BODY
    draft = tmp_path / "draft"
    draft.write_bytes(BODY)

    assert bring(f"{file_server.url}/a.zip", draft) == []
    assert draft.read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 416, 503])
def test_an_error_of_the_server_is_a_sentence(
    status: int, file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.status = status

    with pytest.raises(DownloadError, match=rf"answered {status} \(.+\).*--file"):
        bring(f"{file_server.url}/a.zip", tmp_path / "draft")

    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_is_not_waited_for(
    file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.files["/a.zip"] = BODY
    file_server.stall = threading.Event()

    with pytest.raises(DownloadError, match=r"lost \(.*timed out\).*continues"):
        bring(f"{file_server.url}/a.zip", tmp_path / "draft")


def test_no_server_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"can't be reached .*--file"):
        bring("http://127.0.0.1:9/a.zip", tmp_path / "draft")


def test_more_bytes_than_expected_are_not_taken(file_server: "FileServer", tmp_path: Path) -> None:
    file_server.files["/a.zip"] = BODY

    with pytest.raises(DownloadError, match=r"larger than the 1,000 bytes"):
        bring(f"{file_server.url}/a.zip", tmp_path / "draft", largest=1000)

    assert (tmp_path / "draft").stat().st_size <= 1000


def test_a_disk_that_takes_nothing_is_an_error_of_the_disk(file_server: "FileServer") -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    file_server.files["/a.zip"] = BODY

    with pytest.raises(OSError, match="No space left") as failed:
        bring(f"{file_server.url}/a.zip", full)

    assert failed.value.errno == errno.ENOSPC


def test_a_file_that_moved_is_followed(file_server: "FileServer", tmp_path: Path) -> None:
    file_server.files["/new.zip"] = BODY
    file_server.moved["/a.zip"] = f"{file_server.url}/new.zip"

    bring(f"{file_server.url}/a.zip", tmp_path / "draft")

    assert (tmp_path / "draft").read_bytes() == BODY


@pytest.mark.parametrize("target", ["http://example.org/a.zip", "ftp://example.org/a.zip"])
def test_an_encrypted_address_never_leads_to_an_open_one(target: str) -> None:
    asked = Request("https://example.org/a.zip")

    with pytest.raises(DownloadError, match=r"not encrypted; it was not followed"):
        HttpsStaysHttps().redirect_request(asked, BytesIO(), 302, "", HTTPMessage(), target)


def test_a_small_text_is_read_up_to_a_limit(file_server: "FileServer") -> None:
    file_server.files["/a.zip.md5"] = b"0123456789"

    assert read_text(f"{file_server.url}/a.zip.md5", largest_bytes=4) == "0123"
