"""Which files a configuration means, and what makes them new."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import find_sources, source_fingerprint


def _write(path: Path, text: str = "user_id,item_id,timestamp\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _names(config: SourceConfig) -> list[str]:
    return [source.name for source in find_sources(config)]


def test_a_folder_is_searched_with_its_subfolders_and_drafts_are_left_out(tmp_path: Path) -> None:
    for name in ("2.csv", "a/1.csv.gz", ".hidden.csv", "_tmp/3.csv", "notes.txt"):
        _write(tmp_path / name)
    names = _names(SourceConfig(interactions=tmp_path))
    assert names == ["interactions/2.csv", "interactions/a/1.csv.gz"]


def test_a_glob_names_files_from_its_first_wildcard_on(tmp_path: Path) -> None:
    for name in ("x/2026/a.csv", "x/2025/a.csv", "y/2026/a.csv"):
        _write(tmp_path / name)
    config = SourceConfig(interactions=tmp_path / "x" / "20*" / "*.csv")
    assert _names(config) == ["interactions/2025/a.csv", "interactions/2026/a.csv"]


def test_movielens_is_a_preset_for_a_folder(tmp_path: Path) -> None:
    _write(tmp_path / "ratings.csv")
    _write(tmp_path / "movies.csv")
    config = SourceConfig(format="movielens", interactions=tmp_path)
    assert _names(config) == ["interactions/ratings.csv", "items/movies.csv"]


def test_movielens_takes_the_old_files_too(tmp_path: Path) -> None:
    for name in ("ratings.dat", "movies.dat", "users.dat"):
        _write(tmp_path / name)
    config = SourceConfig(format="movielens", interactions=tmp_path)
    assert _names(config) == ["interactions/ratings.dat", "items/movies.dat"]


def test_a_file_with_the_stamp_of_before_is_not_read_again(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv")
    config = SourceConfig(interactions=path)
    (source,) = find_sources(config)
    known = {source.name: (source.stamp, "of before")}
    assert source_fingerprint(config, known) == {source.name: "of before"}
    _write(path, "another size")
    assert source_fingerprint(config, known) != {source.name: "of before"}


def test_linked_folders_are_followed_and_circles_left(tmp_path: Path) -> None:
    _write(tmp_path / "far" / "a.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "in")
    assert _names(SourceConfig(interactions=tmp_path / "in")) == ["interactions/linked/a.csv"]


@pytest.mark.parametrize("name", ["klingon", "utf-16"])
def test_an_encoding_that_has_no_lines_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"encoding|read line by line"):
        SourceConfig(interactions=Path("a.csv"), encoding=name)


def test_the_fingerprint_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    here, there = _write(tmp_path / "1" / "a.csv"), _write(tmp_path / "2" / "a.csv")
    first = source_fingerprint(SourceConfig(interactions=here))
    assert first == source_fingerprint(SourceConfig(interactions=there.parent))
    _write(here, "changed")
    assert first != source_fingerprint(SourceConfig(interactions=here))


@pytest.mark.parametrize(
    ("change", "table", "matters"),
    [
        ({"timestamp_unit": "ms"}, "interactions", True),
        ({"timestamp_unit": "ms"}, "items", True),
        ({"default_event_type": "view"}, "interactions", True),
        ({"default_event_type": "view"}, "items", False),
        ({"max_quarantined_share": 0.5}, "interactions", False),
        ({"interactions": Path("elsewhere.csv")}, "interactions", False),
    ],
)
def test_the_mapping_digest_covers_what_decides_the_rows(
    change: dict[str, object], table: str, matters: bool
) -> None:
    config = SourceConfig(interactions=Path("a.csv"))
    assert (config.mapping(table) != config.model_copy(update=change).mapping(table)) is matters


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere does not exist\. Set source\.interactions"):
        find_sources(SourceConfig(interactions=tmp_path / "nowhere"))


def test_a_place_without_matching_files_says_what_is_there(tmp_path: Path) -> None:
    _write(tmp_path / "export.json")
    with pytest.raises(SourceError, match=r"holds no \.parquet file \(there: export\.json\)"):
        find_sources(SourceConfig(format="parquet", interactions=tmp_path))
    with pytest.raises(SourceError, match=r"there: nothing"):
        find_sources(SourceConfig(interactions=tmp_path / "*.csv"))


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown time zone 'Berlin'"):
        SourceConfig(interactions=Path("a.csv"), timezone="Berlin")
