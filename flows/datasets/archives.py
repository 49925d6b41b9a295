"""Archives from the web: checksums, and unpacking that does not trust them."""

import hashlib
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PureWindowsPath


class ArchiveError(ValueError):
    """An archive can't be used; the message says why and what to do."""


def md5_file(path: Path) -> str:
    """MD5 of a file's bytes, the checksum that publishers of data sets use."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def extract(archive: Path, names: Sequence[str], folder: Path, *, largest_bytes: int) -> None:
    """Unpack some members of a zip archive into a folder, under their last names.

    Args:
        archive: The zip file.
        names: Members to unpack, for example `ml-1m/ratings.dat`.
        folder: Existing folder to unpack to.
        largest_bytes: Largest total size of these members, unpacked.

    Raises:
        ArchiveError: The file is no zip file, is damaged, lacks a member, is larger than allowed,
            or has a member that is a link or leads out of its folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _refuse_dangerous(archive, opened.infolist())
            members = _choose(archive, opened, names)
            _refuse_large(archive, members, largest_bytes)
            for member in members:
                _unpack(opened, member, folder / member.filename.rpartition("/")[2])
    # Python raises RuntimeError for a password and for an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        msg = f"{archive} can't be unpacked as a zip file ({error}). Download it again."
        raise ArchiveError(msg) from error


def _refuse_dangerous(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse the whole archive for one dangerous member, which is no accident."""
    for member in members:
        path = PureWindowsPath(member.filename)  # handles both kinds of slashes, and drives
        if path.drive or path.root or ".." in path.parts:
            problem = "leads out of the folder that it would be unpacked to"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "is a link, not a file"
        else:
            continue
        msg = (
            f"{archive} was not unpacked: its member {member.filename!r} {problem}. "
            "Don't use this file; download the archive from its publisher."
        )
        raise ArchiveError(msg)


def _choose(archive: Path, opened: zipfile.ZipFile, names: Sequence[str]) -> list[zipfile.ZipInfo]:
    present = set(opened.namelist())
    missing = [name for name in names if name not in present]
    if missing:
        msg = (
            f"{archive} has no {' and no '.join(missing)} (in it: "
            f"{', '.join(sorted(present)) or 'nothing'}). It is another archive or another edition."
        )
        raise ArchiveError(msg)
    return [opened.getinfo(name) for name in names]


def _refuse_large(archive: Path, members: Sequence[zipfile.ZipInfo], largest_bytes: int) -> None:
    """Refuse by the stated sizes; the zip module never unpacks more of a member than stated."""
    total = sum(member.file_size for member in members)
    if total > largest_bytes:
        msg = (
            f"{archive} was not unpacked: it would take {total:,} bytes, at most "
            f"{largest_bytes:,} were expected. Download the archive from its publisher."
        )
        raise ArchiveError(msg)


def _unpack(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    with opened.open(member) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream)
        stream.flush()
        os.fsync(stream.fileno())
