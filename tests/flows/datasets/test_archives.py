"""Archives from elsewhere: what is unpacked, and what is refused."""

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from flows.datasets.archives import ArchiveError, extract, md5_file


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def _extract(archive: Path, *names: str, largest: int = 1000) -> dict[str, bytes]:
    folder = archive.with_name("out")
    folder.mkdir()
    extract(archive, names, folder, largest_bytes=largest)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_md5_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")

    assert md5_file(path) == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, A.5
    content = bytes(3_000_000)
    path.write_bytes(content)
    assert md5_file(path) == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_only_wanted_members_come_out_and_without_their_folder(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("ml/a.csv", b"1"), ("ml/b.csv", b"2"), ("ml/c.csv", b"3"))

    assert _extract(archive, "ml/a.csv", "ml/c.csv") == {"a.csv": b"1", "c.csv": b"3"}


@pytest.mark.parametrize(
    "name", ["../evil", "ml/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:evil", "\\evil"]
)
def test_an_archive_with_a_member_that_leads_out_is_refused_whole(
    name: str, tmp_path: Path
) -> None:
    archive = _zip(tmp_path / "a.zip", ("ml/a.csv", b"1"), (name, b"evil"))

    with pytest.raises(ArchiveError, match=r"evil' leads out of the folder .*publisher"):
        _extract(archive, "ml/a.csv")

    assert {path.name for path in tmp_path.rglob("*")} == {"a.zip", "out"}


def test_an_archive_with_a_link_is_refused_whole(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("ml/a.csv")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = _zip(tmp_path / "a.zip", (link, b"/etc/passwd"))

    with pytest.raises(ArchiveError, match=r"'ml/a.csv' is a link"):
        _extract(archive, "ml/a.csv")


def test_an_archive_that_would_burst_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("a", bytes(900_000)), ("b", bytes(200_000)))
    assert archive.stat().st_size < 2000

    with pytest.raises(ArchiveError, match=r"take 1,100,000 bytes, at most 1,000,000"):
        _extract(archive, "a", "b", largest=1_000_000)

    assert list((tmp_path / "out").iterdir()) == []


def test_a_member_that_states_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("a", bytes(100_000)))
    content = archive.read_bytes()
    size = (100_000).to_bytes(4, "little")
    assert content.count(size) == 2  # in the member's header and in the directory
    archive.write_bytes(content.replace(size, (10).to_bytes(4, "little")))

    with pytest.raises(ArchiveError, match=r"can't be unpacked"):
        _extract(archive, "a", largest=50)

    assert (tmp_path / "out" / "a").stat().st_size <= 10


def test_a_missing_member_is_named_with_what_is_there(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("ml/a.csv", b"1"))

    with pytest.raises(ArchiveError, match=r"has no ml/b\.csv \(in it: ml/a\.csv\)"):
        _extract(archive, "ml/a.csv", "ml/b.csv")


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"<html>Not found</html>")

    with pytest.raises(ArchiveError, match=r"a\.zip can't be unpacked as a zip file"):
        _extract(path, "a")


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    text = b"".join(b"%d," % number for number in range(200))
    archive = _zip(tmp_path / "a.zip", ("a", text))
    content = bytearray(archive.read_bytes())
    content[100] ^= 0xFF
    archive.write_bytes(content)

    with pytest.raises(ArchiveError, match=r"can't be unpacked"):
        _extract(archive, "a")
