"""What is no source file at all, and random bytes in every format."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_core.data.sources.config import SourceError
from tests.bad_input import (
    GOOD,
    HEADER,
    JSON_ROW,
    RefusalCase,
    assert_no_row_is_lost,
    assert_refused,
    ingest_folder,
    json_lines,
    parquet_bytes,
)


def test_a_name_never_leaves_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "..hidden").mkdir(parents=True)
    (folder / "a..csv").write_text(HEADER + GOOD)
    (folder / "..hidden" / "b.csv").write_text(HEADER + GOOD)
    files = ingest_folder(tmp_path / "workspace", folder / ".." / "in")
    assert [file["source"] for file in files] == ["interactions/a..csv"]
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside == {"in", "workspace"}


BYTES = st.binary(max_size=80) | st.text(max_size=80).map(str.encode)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BYTES, st.sampled_from(["csv", "jsonl", "parquet"]), st.integers(0, 200))
def test_random_bytes_end_in_rows_or_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, kind: str, cut: int
) -> None:
    workspace = tmp_path_factory.mktemp("noise")
    folder = workspace / "in"
    folder.mkdir()
    good = {
        "csv": (HEADER + GOOD).encode(),
        "jsonl": json_lines(*[JSON_ROW] * 4).encode(),
        "parquet": parquet_bytes(),
    }[kind]
    (folder / f"a.{kind}").write_bytes(good[:cut] + noise + good[cut:])
    refused = None
    try:
        files = ingest_folder(workspace, folder, format=kind)
    except SourceError as error:
        files, refused = [], str(error)
    assert_no_row_is_lost(workspace, files)
    assert files or (refused and f"a.{kind}" in refused and refused.endswith("."))


REFUSED = {
    "no file at all": RefusalCase(
        lambda at: (at / "a.txt").touch(), r"holds no \.csv .*there: a\.txt"
    ),
    "a folder called like a file": RefusalCase(
        lambda at: (at / "a.csv").mkdir(),
        r"No interactions found",
    ),
    "a pipe": RefusalCase(lambda at: os.mkfifo(at / "a.csv"), r"No interactions found"),
    "a link to nowhere": RefusalCase(
        lambda at: (at / "a.csv").symlink_to(at / "gone"),
        r"No interactions found",
    ),
    "links in a circle": RefusalCase(
        lambda at: (at / "round").symlink_to(at), r"No interactions found"
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_can_not_be_read_is_refused_with_a_sentence(
    tmp_path: Path, case: RefusalCase
) -> None:
    assert_refused(tmp_path, case)
