"""The table of public data sets, and what is said of them before anything is downloaded."""

import re
from urllib.parse import urlsplit

import pytest

from flows.datasets.registry import DATASETS, Dataset, DatasetError, find_dataset, licence_notice


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_every_entry_is_encrypted_checked_and_sized(dataset: Dataset) -> None:
    for url in (dataset.url, dataset.licence_url):
        assert urlsplit(url)[:2] == ("https", "files.grouplens.org")
    assert re.fullmatch(r"[0-9a-f]{32}", dataset.md5)
    assert dataset.url.endswith(f"/{dataset.name}.zip")
    assert 900_000 < dataset.size_bytes < 300_000_000


def test_names_and_checksums_are_distinct() -> None:
    assert len({dataset.name for dataset in DATASETS}) == len(DATASETS)
    assert len({dataset.md5 for dataset in DATASETS}) == len(DATASETS)


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_the_notice_says_whose_they_are_and_what_is_allowed(dataset: Dataset) -> None:
    notice = licence_notice(dataset)

    for part in ("University of Minnesota", dataset.licence_url, "commercial", "passed on", "Cite"):
        assert part in notice


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert find_dataset("ml-1m").name == "ml-1m"
    with pytest.raises(DatasetError, match=r"no data set 'ml-2m'.*ml-1m, ml-10m"):
        find_dataset("ml-2m")
