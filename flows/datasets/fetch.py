"""Fetching a public data set: download, check and unpack it into a folder that a night can read."""

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
"""Names the data set in a folder. It is written last; a folder without it is incomplete."""
_MOST_GROWTH = 4  # of a data set that its owner replaces, against the edition that is known
_MOST_UNPACKED = 20  # times the archive's size; the real ones need about 4
_CHECKSUM_FILE_BYTES = 4096
_WINDOW_SHARE = 0.05


def how_to_read(folder: Path) -> str:
    """The configuration that reads the data set, and the command that uses it.

    The data has an end and is sparse there, so the run date is fixed and the windows are longer
    than for nightly data.
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
        DatasetError: The folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    held = _held(folder)
    lacking = [f"{table}.csv" for table in COLUMNS if not (folder / f"{table}.csv").is_file()]
    if held == dataset.name and not lacking:
        return True
    what = f"{held} without {' and '.join(lacking)}" if held == dataset.name else held
    msg = (
        f"{folder} should become {dataset.name} and holds {what}. "
        "Choose another folder with --to, or remove this one."
    )
    raise DatasetError(msg)


def fetch(dataset: Dataset, folder: Path, *, archive: Path | None, progress: Progress) -> bool:
    """Download, check and unpack a data set into a folder; after a failure there is no folder.

    Args:
        dataset: The data set.
        folder: The folder to create. Until it is complete it has a hidden name beside it.
        archive: An archive that the user downloaded; the network is then not used.
        progress: Called while the archive is downloaded.

    Returns:
        False if the folder already holds the data set.

    Raises:
        DatasetError: The folder holds something else, the checksum is wrong or the disk is full.
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
    """The name of the data set in a folder that is not empty."""
    marker = folder / MARKER
    facts = read_json(marker) if marker.is_file() else None
    return str(facts.get("dataset")) if isinstance(facts, dict) else "something else"


def _check_given(dataset: Dataset, archive: Path) -> str:
    """Check an archive that the user downloaded; returns its checksum."""
    if not archive.is_file():
        msg = f"There is no file {archive}. Give --file the archive {dataset.name}.zip."
        raise DatasetError(msg)
    beside = archive.with_name(f"{archive.name}.md5")
    expected = dataset.md5
    if dataset.changes and beside.is_file():
        expected = _parse_checksum(beside.read_text(errors="replace"), str(beside))
    checksum = md5_file(archive)
    if checksum != expected:
        edition = (
            f" If it is a newer edition, put its published checksum ({dataset.url}.md5) beside it "
            f"as {beside.name}."
            if dataset.changes
            else ""
        )
        msg = (
            f"{archive} has the MD5 checksum {checksum}, not {expected} as {dataset.name}.zip "
            f"should: it is damaged or another file. Download {dataset.url} again.{edition}"
        )
        raise DatasetError(msg)
    return checksum


def _download(dataset: Dataset, archive: Path, progress: Progress) -> str:
    """Download an archive and check it; returns its checksum."""
    expected = dataset.md5
    if dataset.changes:
        address = f"{dataset.url}.md5"
        expected = _parse_checksum(read_text(address, largest_bytes=_CHECKSUM_FILE_BYTES), address)
    largest = dataset.size_bytes * (_MOST_GROWTH if dataset.changes else 1)
    download(dataset.url, archive, largest_bytes=largest, progress=progress)
    checksum = md5_file(archive)
    if checksum != expected:
        msg = (
            f"{dataset.url} came with the MD5 checksum {checksum}, not the published {expected}; "
            "the download was removed. Run the command again; if it comes out the same, the "
            "archive was replaced or is not the publisher's: don't use it."
        )
        raise DatasetError(msg)
    return checksum


def _parse_checksum(text: str, origin: str) -> str:
    """The MD5 in a checksum file, in the form of either `md5sum` or `md5`."""
    match = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    if match is None:
        msg = (
            f"{origin} holds no MD5 checksum (it begins with {text[:40]!r}), so the archive can't "
            "be checked. Try again later."
        )
        raise DatasetError(msg)
    return match[0]


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
