"""Public data sets by name: address, owner, licence and checksum.

The owner publishes each checksum beside the archive, at its address plus `.md5`.
"""

from dataclasses import dataclass

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_FORBIDDEN = "May not be passed on without separate permission."
_SAME_TERMS = "May be passed on, changed or not, under these same conditions only."


class DatasetError(ValueError):
    """A data set is not available; the message says what was expected and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A published archive.

    Attributes:
        name: Name on the command line; the archive is `name`.zip.
        title: Description.
        url: Address of the archive; `url`.md5 is its published checksum.
        licence_url: The publisher's text, which also describes the files.
        redistribution: The licence's terms for passing the data on, as a sentence.
        md5: Published checksum of the archive. With `changes`, that of the last known edition.
        size_bytes: Size of that archive.
        root: Folder inside the archive.
        readme: File in that folder with the licence.
        dat_encoding: Encoding of its `.dat` files; None for CSV files.
        changes: Whether the owner replaces the archive now and then. The checksum published beside
            it then shows that the download is whole, but not which edition it is.
    """

    name: str
    title: str
    url: str
    licence_url: str
    redistribution: str
    md5: str
    size_bytes: int
    root: str
    readme: str = "README.txt"
    dat_encoding: str | None = None
    changes: bool = False


DATASETS = (
    Dataset(
        name="ml-latest-small",
        title="MovieLens latest-small: 0.1 M ratings through 2018; its owner may replace it",
        url=f"{_GROUPLENS}/ml-latest-small.zip",
        licence_url=f"{_GROUPLENS}/ml-latest-small-README.html",
        redistribution=_SAME_TERMS,
        md5="31a303aabbc519bd33d025e44d6c2570",
        size_bytes=978_202,
        root="ml-latest-small",
        changes=True,
    ),
    Dataset(
        name="ml-1m",
        title="MovieLens 1M: 1.0 M ratings, 2000 to 2003",
        url=f"{_GROUPLENS}/ml-1m.zip",
        licence_url=f"{_GROUPLENS}/ml-1m-README.txt",
        redistribution=_FORBIDDEN,
        md5="c4d9eecfca2ab87c1945afe126590906",
        size_bytes=5_917_549,
        root="ml-1m",
        readme="README",
        dat_encoding="iso-8859-1",
    ),
    Dataset(
        name="ml-10m",
        title="MovieLens 10M: 10.0 M ratings through 2009",
        url=f"{_GROUPLENS}/ml-10m.zip",
        licence_url=f"{_GROUPLENS}/ml-10m-README.html",
        redistribution=_FORBIDDEN,
        md5="ce571fd55effeba0271552578f2648bd",
        size_bytes=65_566_137,
        root="ml-10M100K",
        readme="README.html",
        dat_encoding="utf-8",
    ),
    Dataset(
        name="ml-20m",
        title="MovieLens 20M: 20.0 M ratings, 1995 to 2015",
        url=f"{_GROUPLENS}/ml-20m.zip",
        licence_url=f"{_GROUPLENS}/ml-20m-README.html",
        redistribution=_FORBIDDEN,
        md5="cd245b17a1ae2cc31bb14903e1204af3",
        size_bytes=198_702_078,
        root="ml-20m",
    ),
    Dataset(
        name="ml-25m",
        title="MovieLens 25M: 25.0 M ratings, 1995 to 2019",
        url=f"{_GROUPLENS}/ml-25m.zip",
        licence_url=f"{_GROUPLENS}/ml-25m-README.html",
        redistribution=_FORBIDDEN,
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
        size_bytes=261_978_986,
        root="ml-25m",
    ),
    Dataset(
        name="ml-32m",
        title="MovieLens 32M: 32.0 M ratings, 1995 to 2023",
        url=f"{_GROUPLENS}/ml-32m.zip",
        licence_url=f"{_GROUPLENS}/ml-32m-README.html",
        redistribution=_SAME_TERMS,
        md5="d472be332d4daa821edc399621853b57",
        size_bytes=238_950_008,
        root="ml-32m",
    ),
)


def find_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        DatasetError: There is no such data set.
    """
    for dataset in DATASETS:
        if dataset.name == name:
            return dataset
    known = ", ".join(dataset.name for dataset in DATASETS)
    msg = f"There is no data set {name!r}. Choose one of {known}."
    raise DatasetError(msg)


def licence_notice(dataset: Dataset) -> str:
    """Owner, licence and citation, for the user to read before the download."""
    return (
        f"{dataset.title}\n"
        "Owner    GroupLens Research, University of Minnesota\n"
        f"Licence  {dataset.licence_url}\n"
        "         For research. Not for commercial or revenue-bearing use without permission; no\n"
        "         endorsement may be implied.\n"
        f"         {dataset.redistribution}\n"
        "Cite     F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History\n"
        "         and Context. ACM Transactions on Interactive Intelligent Systems (TiiS) 5, 4,\n"
        "         Article 19. https://doi.org/10.1145/2827872"
    )
