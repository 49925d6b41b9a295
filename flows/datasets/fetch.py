"""Fetch a public data set: download, check, unpack, publish in a folder that a night can read."""

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

from flows.datasets.archives import ArchiveError, extract, md5_file
from flows.datasets.download import Progress, download, read_text
from flows.datasets.movielens import COLUMNS, convert_dat, time_span
from flows.datasets.registry import Dataset, DatasetError
from recsys_core.artifacts import read_json, write_json

MARKER = "dataset.json"
"""Written last into a folder: which data set it holds. Without it, the folder holds none."""
_MOST_GROWTH = 4  # of a data set that its owner replaces, against the edition that is known
_MOST_UNPACKED = 20  # times the archive's size; the real ones need about 4
_CHECKSUM_FILE_BYTES = 4096
_WINDOW_SHARE = 0.05


def how_to_read(folder: Path) -> str:
    """The configuration that reads the data set, and the command that uses it.

    The data have ended and are sparse at their end, so the run date is fixed and the windows are
    longer than for nightly data.
    """
    end, days = time_span(folder / "ratings.csv", newest_share=_WINDOW_SHARE)
    return (
        "A night reads it with these lines in a TOML file:\n\n"
        f"    run_date = {end + timedelta(days=1)}  # the data end the day before\n\n"
        "    [source]\n"
        '    format = "movielens"\n'
        f"    interactions = {json.dumps(str(folder.resolve()), ensure_ascii=False)}\n\n"
        f"    [prepare]  # windows as long as the newest {_WINDOW_SHARE:.0%} of the ratings took\n"
        f"    test_days = {days}\n"
        f"    validation_days = {days}\n"
        f"    popularity_days = {days}\n\n"
        "and the command:\n\n"
        "    recdistill nightly --config FILE.toml"
    )


def is_there(dataset: Dataset, folder: Path) -> bool:
    """Whether a folder holds the data set; False if the folder is free.

    Raises:
        DatasetError: Something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = _held(folder)
    lacking = [f"{table}.csv" for table in COLUMNS if not (folder / f"{table}.csv").is_file()]
    if found == dataset.name and not lacking:
        return True
    what = f"{found} without {' and '.join(lacking)}" if found == dataset.name else found
    msg = (
        f"{folder} should become {dataset.name} and holds {what}. "
        "Choose another folder with --to, or remove this one."
    )
    raise DatasetError(msg)


def fetch(dataset: Dataset, folder: Path, *, archive: Path | None, progress: Progress) -> bool:
    """Bring a data set into a folder, checked and complete, or not at all.

    Args:
        dataset: Which.
        folder: The folder to make. Until it is whole it has a hidden name beside that.
        archive: One that was downloaded by other means; then the network is not used.
        progress: Called while the archive is downloaded.

    Returns:
        Whether anything had to be done.

    Raises:
        DatasetError: Something else is in the folder, the checksum is wrong or the disk is full.
        ArchiveError: The archive can't be unpacked safely.
        DownloadError: The download failed.
    """
    folder = folder.resolve()
    if is_there(dataset, folder):
        return False
    draft = folder.with_name(f".{folder.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        if archive is not None:
            md5 = _check_given(dataset, archive)
            _unpack(dataset, archive, draft)
        else:
            downloaded = draft / "archive.zip"
            md5 = _download(dataset, downloaded, progress)
            _unpack(dataset, downloaded, draft)
            downloaded.unlink()
        write_json(draft / MARKER, {"dataset": dataset.name, "url": dataset.url, "md5": md5})
        draft.replace(folder)
    except OSError as error:
        msg = (
            f"{dataset.name} can't be written to {folder} ({error.strerror or error}). Nothing was "
            "published. Make room there, or choose another folder with --to, then run the command "
            "again."
        )
        raise DatasetError(msg) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _held(folder: Path) -> str:
    """Which data set is in a folder that is not empty."""
    marker = folder / MARKER
    facts = read_json(marker) if marker.is_file() else None
    return str(facts.get("dataset")) if isinstance(facts, dict) else "something else"


def _check_given(dataset: Dataset, archive: Path) -> str:
    """The checksum of an archive that the user brought."""
    if not archive.is_file():
        msg = f"There is no file {archive}. Give --file the archive {dataset.name}.zip."
        raise DatasetError(msg)
    beside = archive.with_name(f"{archive.name}.md5")
    expected = dataset.md5
    if dataset.changes and beside.is_file():
        expected = _parse_checksum(beside.read_text(errors="replace"), str(beside))
    found = md5_file(archive)
    if found != expected:
        edition = (
            f" If it is a newer edition, put its published checksum ({dataset.url}.md5) beside it "
            f"as {beside.name}."
            if dataset.changes
            else ""
        )
        msg = (
            f"{archive} has the MD5 checksum {found}, not {expected} as {dataset.name}.zip should: "
            f"it is damaged or another file. Download {dataset.url} again.{edition}"
        )
        raise DatasetError(msg)
    return found


def _download(dataset: Dataset, archive: Path, progress: Progress) -> str:
    """Download an archive and check it; returns its checksum."""
    expected = dataset.md5
    if dataset.changes:
        address = f"{dataset.url}.md5"
        expected = _parse_checksum(read_text(address, largest_bytes=_CHECKSUM_FILE_BYTES), address)
    largest = dataset.size_bytes * (_MOST_GROWTH if dataset.changes else 1)
    download(dataset.url, archive, largest_bytes=largest, progress=progress)
    found = md5_file(archive)
    if found != expected:
        msg = (
            f"{dataset.url} came with the MD5 checksum {found}, not {expected} as was published; "
            "the download was removed. Run the command again; if it comes out the same, the "
            "archive was replaced or is not the publisher's: don't use it."
        )
        raise DatasetError(msg)
    return found


def _parse_checksum(text: str, origin: str) -> str:
    """The MD5 in a checksum file, in the form of either `md5sum` or `md5`."""
    found = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    if found is None:
        msg = (
            f"{origin} holds no MD5 checksum (it begins with {text[:40]!r}), so the archive can't "
            "be checked. Try again later."
        )
        raise DatasetError(msg)
    return found[0]


def _unpack(dataset: Dataset, archive: Path, folder: Path) -> None:
    """Unpack the files that a night needs, as CSV."""
    kind = "dat" if dataset.dat_encoding else "csv"
    names = [dataset.readme, *(f"{table}.{kind}" for table in COLUMNS)]
    extract(
        archive,
        [f"{dataset.root}/{name}" for name in names],
        folder,
        largest_bytes=dataset.size_bytes * _MOST_UNPACKED,
    )
    if dataset.dat_encoding:
        _convert(folder, dataset.dat_encoding)


def _convert(folder: Path, encoding: str) -> None:
    for table in COLUMNS:
        source = folder / f"{table}.dat"
        try:
            convert_dat(source, source.with_suffix(".csv"), encoding=encoding)
        except UnicodeDecodeError as error:
            msg = f"{source.name} is not {encoding} text ({error}): it is another edition."
            raise ArchiveError(msg) from error
        source.unlink()
