"""The older MovieLens files as CSV, and where the ratings end."""

import csv
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.datasets.movielens import convert_dat, time_span

TITLES = st.text(st.characters(exclude_characters=":\r\n", codec="iso-8859-1"), min_size=1)


def test_ratings_get_a_header_and_commas(tmp_path: Path) -> None:
    source, target = tmp_path / "ratings.dat", tmp_path / "ratings.csv"
    source.write_bytes(b"1::1193::5::978300760\r\n1::661::3.5::978302109\n")

    convert_dat(source, target, encoding="utf-8")

    expected = "userId,movieId,rating,timestamp\n1,1193,5,978300760\n1,661,3.5,978302109\n"
    assert target.read_text() == expected


def test_titles_keep_their_commas_quotes_colons_and_accents(tmp_path: Path) -> None:
    source, target = tmp_path / "movies.dat", tmp_path / "movies.csv"
    source.write_bytes('7::Misérables, Les: "A" (1995)::Drama|Musical\n'.encode("iso-8859-1"))

    convert_dat(source, target, encoding="iso-8859-1")

    assert target.read_text(encoding="utf-8") == (
        'movieId,title,genres\n7,"Misérables, Les: ""A"" (1995)",Drama|Musical\n'
    )


@given(titles=st.lists(TITLES, min_size=1, max_size=5))
def test_every_title_survives(titles: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("titles")
    lines = [f"{number}::{title}::Drama\n" for number, title in enumerate(titles)]
    (folder / "movies.dat").write_bytes("".join(lines).encode("iso-8859-1"))

    convert_dat(folder / "movies.dat", folder / "movies.csv", encoding="iso-8859-1")

    with (folder / "movies.csv").open(encoding="utf-8", newline="") as stream:
        assert [row[1] for row in csv.reader(stream)] == ["title", *titles]


def test_a_line_with_other_fields_is_named(tmp_path: Path) -> None:
    source = tmp_path / "ratings.dat"
    source.write_text("1::2::3::4\n1::2::3\n")

    with pytest.raises(ValueError, match=r"ratings\.dat, line 2 has 3 fields .* not the 4 of user"):
        convert_dat(source, tmp_path / "ratings.csv", encoding="utf-8")


def test_the_last_day_is_that_of_the_newest_rating_in_utc(tmp_path: Path) -> None:
    ratings = _ratings(tmp_path, [946684799, 946684700])

    assert time_span(ratings, newest_share=0.5) == (date(1999, 12, 31), 1)  # a second before 2000


def test_the_newest_ratings_took_as_long_as_from_their_oldest_on(tmp_path: Path) -> None:
    day = 86_400
    ratings = _ratings(tmp_path, [day * n for n in range(101)])  # day 0 to day 100

    assert time_span(ratings, newest_share=0.05).newest_days == 5
    assert time_span(ratings, newest_share=0.2).newest_days == 20


def _ratings(folder: Path, times: list[int]) -> Path:
    path = folder / "ratings.csv"
    rows = [f"1,{item},3,{time}" for item, time in enumerate(times)]
    path.write_text("\n".join(["userId,movieId,rating,timestamp", *rows, ""]))
    return path
