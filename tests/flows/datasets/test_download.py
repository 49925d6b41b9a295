"""Downloads from a real server that answers, fails, stalls and hangs up."""

import errno
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.datasets.download import DownloadError, download, read_text

if TYPE_CHECKING:
    from tests.flows.conftest import FileServer

BODY = bytes(range(256)) * 4000


def bring(url: str, path: Path, *, largest: int = len(BODY)) -> list[tuple[int, int | None]]:
    """Download with a short patience; returns what the progress said."""
    said: list[tuple[int, int | None]] = []
    download(
        url,
        path,
        largest_bytes=largest,
        progress=lambda done, total: said.append((done, total)),
        timeout_seconds=0.5,
    )
    return said


def test_a_file_arrives_whole_and_the_progress_ends_at_its_size(
    file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.files["/a.zip"] = BODY

    said = bring(f"{file_server.url}/a.zip", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == BODY
    assert said[-1] == (len(BODY), len(BODY))
    assert said == sorted(said)


def test_a_broken_connection_is_a_sentence(file_server: "FileServer", tmp_path: Path) -> None:
    file_server.files["/a.zip"] = BODY
    file_server.cut_after = 300_000

    with pytest.raises(DownloadError, match=r"300000 bytes read, 724000 more expected.*again"):
        bring(f"{file_server.url}/a.zip", tmp_path / "file")


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_of_the_server_is_a_sentence(
    status: int, file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.status = status

    with pytest.raises(DownloadError, match=rf"answered {status} \(.+\).*--file"):
        bring(f"{file_server.url}/a.zip", tmp_path / "file")


def test_a_server_that_falls_silent_is_not_waited_for(
    file_server: "FileServer", tmp_path: Path
) -> None:
    file_server.files["/a.zip"] = BODY
    file_server.stall = threading.Event()

    with pytest.raises(DownloadError, match=r"\(.*timed out\).*again"):
        bring(f"{file_server.url}/a.zip", tmp_path / "file")


def test_no_server_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"\(.*Connection refused\).*--file"):
        bring("http://127.0.0.1:9/a.zip", tmp_path / "file")


def test_more_bytes_than_expected_are_not_taken(file_server: "FileServer", tmp_path: Path) -> None:
    file_server.files["/a.zip"] = BODY

    with pytest.raises(DownloadError, match=r"larger than the 1,000 bytes"):
        bring(f"{file_server.url}/a.zip", tmp_path / "file", largest=1000)

    assert (tmp_path / "file").stat().st_size <= 1000


def test_a_disk_that_takes_nothing_is_an_error_of_the_disk(file_server: "FileServer") -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    file_server.files["/a.zip"] = BODY

    with pytest.raises(OSError, match="No space left") as failed:
        bring(f"{file_server.url}/a.zip", full)

    assert failed.value.errno == errno.ENOSPC


def test_a_redirect_is_followed(file_server: "FileServer", tmp_path: Path) -> None:
    file_server.files["/new.zip"] = BODY
    file_server.moved["/a.zip"] = f"{file_server.url}/new.zip"

    bring(f"{file_server.url}/a.zip", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == BODY


def test_an_encrypted_address_never_leads_to_an_open_one(
    secure_server: "FileServer", file_server: "FileServer", tmp_path: Path
) -> None:
    secure_server.moved["/a.zip"] = f"{file_server.url}/a.zip"

    with pytest.raises(DownloadError, match=r"not encrypted; it was not followed"):
        bring(f"{secure_server.url}/a.zip", tmp_path / "file")

    assert file_server.asked == []


def test_an_encrypted_address_may_lead_to_another(
    secure_server: "FileServer", tmp_path: Path
) -> None:
    secure_server.files["/new.zip"] = BODY
    secure_server.moved["/a.zip"] = "/new.zip"

    bring(f"{secure_server.url}/a.zip", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == BODY


def test_a_certificate_that_nobody_vouches_for_is_refused(
    secure_server: "FileServer", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")

    with pytest.raises(DownloadError, match=r"\(.*certificate verify failed.*\).*--file"):
        bring(f"{secure_server.url}/a.zip", tmp_path / "file")

    assert secure_server.asked == []


def test_a_small_text_is_read_up_to_a_limit(file_server: "FileServer") -> None:
    file_server.files["/a.zip.md5"] = b"0123456789"

    assert read_text(f"{file_server.url}/a.zip.md5", largest_bytes=4) == "0123"
