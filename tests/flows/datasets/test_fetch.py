"""Data sets that are fetched whole, checked, or not at all."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.config import load_config
from flows.datasets.archives import ArchiveError, md5_file
from flows.datasets.download import DownloadError
from flows.datasets.fetch import fetch, how_to_read, is_there
from flows.datasets.registry import Dataset, DatasetError
from recsys_core.artifacts import read_json
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import find_sources
from recsys_core.data.sources.reader import read_chunks
from tests.flows.conftest import MOVIES, RATINGS, write_zip

if TYPE_CHECKING:
    from tests.flows.conftest import FileServer

CONTENT = ["README.txt", "dataset.json", "movies.csv", "ratings.csv"]


def silent(done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def described(archive: Path, server: "FileServer | None" = None) -> Dataset:
    """A data set whose archive this is; the server, if there is one, offers it."""
    url = "https://files.example.org/small.zip"
    if server is not None:
        url = f"{server.url}/small.zip"
        server.files["/small.zip"] = archive.read_bytes()
    return Dataset(
        name="small",
        title="Two ratings",
        url=url,
        licence_url="https://files.example.org/terms",
        redistribution="",
        md5=md5_file(archive),
        size_bytes=archive.stat().st_size,
        root="ml-latest-small",
    )


def test_a_download_becomes_a_folder_that_a_night_can_read(
    file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    dataset = described(small_archive, file_server)
    folder = tmp_path / "data" / "small"

    assert fetch(dataset, folder, archive=None, progress=silent)

    assert names(folder) == CONTENT
    assert names(folder.parent) == ["small"]
    assert (folder / "ratings.csv").read_text(encoding="utf-8") == RATINGS
    assert (folder / "movies.csv").read_text(encoding="utf-8") == MOVIES
    assert read_json(folder / "dataset.json")["md5"] == dataset.md5


def test_a_second_call_does_nothing(
    file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    dataset = described(small_archive, file_server)
    fetch(dataset, tmp_path / "small", archive=None, progress=silent)
    file_server.status = 503

    assert not fetch(dataset, tmp_path / "small", archive=None, progress=silent)
    assert len(file_server.asked) == 1


def test_a_broken_download_publishes_nothing(
    file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    dataset = described(small_archive, file_server)
    file_server.cut_after = 100
    folder = tmp_path / "data" / "small"

    with pytest.raises(DownloadError, match="100 bytes read"):
        fetch(dataset, folder, archive=None, progress=silent)
    assert names(folder.parent) == []
    file_server.cut_after = None
    fetch(dataset, folder, archive=None, progress=silent)

    assert names(folder.parent) == ["small"]


def test_what_a_killed_call_left_is_replaced(small_archive: Path, tmp_path: Path) -> None:
    left = tmp_path / "data" / ".small.draft"
    left.mkdir(parents=True)
    (left / "archive.zip").write_text("half of it")

    fetch(
        described(small_archive),
        tmp_path / "data" / "small",
        archive=small_archive,
        progress=silent,
    )

    assert names(tmp_path / "data") == ["small"]
    assert names(tmp_path / "data" / "small") == CONTENT


def test_a_wrong_checksum_removes_the_download(
    file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    found = md5_file(small_archive)
    dataset = replace(described(small_archive, file_server), md5="0" * 32)
    folder = tmp_path / "data" / "small"

    with pytest.raises(
        DatasetError, match=rf"checksum {found}, not the published {'0' * 32}; .* removed.*again"
    ):
        fetch(dataset, folder, archive=None, progress=silent)

    assert names(folder.parent) == []


def test_an_error_of_the_server_leaves_nothing(
    file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    dataset = described(small_archive, file_server)
    file_server.status = 503

    with pytest.raises(DownloadError, match="answered 503"):
        fetch(dataset, tmp_path / "data" / "small", archive=None, progress=silent)

    assert names(tmp_path / "data") == []


@pytest.mark.parametrize("form", ["{md5}  small.zip\n", "MD5 (small.zip) = {md5}\n"])
def test_a_data_set_that_changes_is_checked_against_what_is_published_beside_it(
    form: str, file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    dataset = replace(described(small_archive, file_server), md5="0" * 32, changes=True)
    found = md5_file(small_archive)
    file_server.files["/small.zip.md5"] = form.format(md5=found.upper()).encode()

    assert fetch(dataset, tmp_path / "small", archive=None, progress=silent)
    assert read_json(tmp_path / "small" / "dataset.json")["md5"] == found


def test_a_checksum_file_without_a_checksum_stops_the_download(
    file_server: "FileServer", small_archive: Path, tmp_path: Path
) -> None:
    dataset = replace(described(small_archive, file_server), changes=True)
    file_server.files["/small.zip.md5"] = b"<html>Sign in</html>"

    with pytest.raises(DatasetError, match=r"\.md5 holds no MD5 checksum .*Sign in"):
        fetch(dataset, tmp_path / "data" / "small", archive=None, progress=silent)

    assert file_server.asked == ["/small.zip.md5"]


def test_an_archive_that_was_downloaded_already_needs_no_network(
    small_archive: Path, tmp_path: Path
) -> None:
    before = small_archive.read_bytes()

    assert fetch(
        described(small_archive), tmp_path / "small", archive=small_archive, progress=silent
    )

    assert names(tmp_path / "small") == CONTENT
    assert small_archive.read_bytes() == before


def test_a_wrong_archive_is_refused_and_kept(small_archive: Path, tmp_path: Path) -> None:
    dataset = replace(described(small_archive), md5="0" * 32)

    with pytest.raises(DatasetError, match=rf"checksum {md5_file(small_archive)}, not 0+ as small"):
        fetch(dataset, tmp_path / "data" / "small", archive=small_archive, progress=silent)

    assert small_archive.exists()
    assert names(tmp_path / "data") == []


def test_a_newer_edition_is_taken_with_its_checksum_beside_it(
    small_archive: Path, tmp_path: Path
) -> None:
    dataset = replace(described(small_archive), md5="0" * 32, changes=True)

    with pytest.raises(DatasetError, match=r"small\.zip\.md5\) beside it as ml-latest-small\.zip"):
        fetch(dataset, tmp_path / "small", archive=small_archive, progress=silent)
    beside = small_archive.with_name(f"{small_archive.name}.md5")
    beside.write_text(f"{md5_file(small_archive)}  {small_archive.name}\n")

    assert fetch(dataset, tmp_path / "small", archive=small_archive, progress=silent)


def test_an_archive_that_is_not_there_is_a_sentence(small_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no file nowhere\.zip.*small\.zip"):
        fetch(
            described(small_archive),
            tmp_path / "small",
            archive=Path("nowhere.zip"),
            progress=silent,
        )


def test_a_dangerous_archive_publishes_nothing(tmp_path: Path) -> None:
    members = {f"ml-latest-small/{name}": RATINGS for name in CONTENT}
    archive = write_zip(tmp_path / "bad.zip", members | {"../../evil": "evil"})

    with pytest.raises(ArchiveError, match="evil' leads out"):
        fetch(described(archive), tmp_path / "data" / "small", archive=archive, progress=silent)

    assert names(tmp_path) == ["bad.zip", "data"]
    assert names(tmp_path / "data") == []


def test_a_folder_with_something_else_is_left_alone(small_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "ratings.csv").write_text("mine")

    with pytest.raises(DatasetError, match=r"holds something else\. Choose another .*--to"):
        fetch(described(small_archive), folder, archive=small_archive, progress=silent)

    assert names(folder) == ["ratings.csv"]


def test_a_folder_that_lost_a_file_is_not_called_whole(small_archive: Path, tmp_path: Path) -> None:
    dataset = described(small_archive)
    fetch(dataset, tmp_path / "small", archive=small_archive, progress=silent)
    (tmp_path / "small" / "movies.csv").unlink()

    with pytest.raises(DatasetError, match=r"holds small without movies\.csv"):
        is_there(dataset, tmp_path / "small")
    with pytest.raises(DatasetError, match=r"holds small\. Choose"):
        is_there(replace(dataset, name="other"), tmp_path / "small")


def test_an_empty_folder_is_filled(small_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()

    fetch(described(small_archive), tmp_path / "small", archive=small_archive, progress=silent)

    assert names(tmp_path / "small") == CONTENT


def test_the_older_files_become_csv(tmp_path: Path) -> None:
    members = {
        "README": "Terms",
        "ratings.dat": "1::10::4::978300760\n2::20::5::978302109\n",
        "movies.dat": "10::One, Two (1999)::Drama|War\n20::Café (2001)::Comedy\n".encode("latin-1"),
        "users.dat": "1::F::1::10::48067\n",
    }
    archive = write_zip(tmp_path / "old.zip", {f"ml-1m/{name}": members[name] for name in members})
    dataset = replace(described(archive), root="ml-1m", readme="README", dat_encoding="iso-8859-1")
    folder = tmp_path / "old"

    fetch(dataset, folder, archive=archive, progress=silent)

    assert names(folder) == ["README", "dataset.json", "movies.csv", "ratings.csv"]
    source = SourceConfig(format="movielens", interactions=folder)
    files = find_sources(source)
    ratings, movies = (next(read_chunks(one, Path(one.location), source)) for one in files)
    assert ratings.select("user_id", "item_id", "timestamp", "weight").rows() == [
        ("1", "10", "978300760", "4"),
        ("2", "20", "978302109", "5"),
    ]
    assert movies["title"].to_list() == ["One, Two (1999)", "Café (2001)"]
    assert movies["categories"].to_list() == ["Drama|War", "Comedy"]


def test_what_is_printed_is_a_configuration_of_a_night(small_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'a "strange" näme'
    fetch(described(small_archive), folder, archive=small_archive, progress=silent)

    text = how_to_read(folder)

    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert lines.pop() == "recdistill nightly --config FILE.toml"
    snippet = tmp_path / "night.toml"
    snippet.write_text("\n".join(lines), encoding="utf-8")
    config = load_config(snippet)
    assert config.run_date == date(2018, 9, 25)
    assert config.prepare.test_days == config.prepare.validation_days == 10
    assert config.events.interactions == str(folder)
    assert len(find_sources(config.events)) == 2


def test_a_disk_that_is_full_in_the_middle_publishes_nothing(
    file_server: "FileServer", small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    """It is full while unpacking: the archive is small, what is in it is not."""
    members = {"README.txt": "Terms", "movies.csv": MOVIES, "ratings.csv": RATINGS * 2000}
    archive = write_zip(
        tmp_path / "large.zip", {f"ml-latest-small/{name}": members[name] for name in members}
    )
    dataset = replace(described(archive, file_server), size_bytes=100_000)
    disk = small_disk(64)

    with pytest.raises(DatasetError, match=r"No space left on device.*Nothing was published.*--to"):
        fetch(dataset, disk / "small", archive=None, progress=silent)

    assert names(disk) == []
    assert fetch(dataset, tmp_path / "small", archive=archive, progress=silent)


def test_a_disk_that_is_full_while_downloading_publishes_nothing(
    file_server: "FileServer", small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    archive = write_zip(tmp_path / "large.zip", {"ml-latest-small/ratings.csv": RATINGS})
    dataset = described(archive, file_server)
    file_server.files["/small.zip"] = bytes(100_000)
    disk = small_disk(64)

    with pytest.raises(DatasetError, match=r"No space left on device.*Make room there"):
        fetch(
            replace(dataset, size_bytes=100_000),
            disk / "small",
            archive=None,
            progress=silent,
        )

    assert names(disk) == []
