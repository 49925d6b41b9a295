"""Content features of items: hashed words of the title and categories, and dense embeddings."""

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

HASHED_TEXT = "hashed text"
"""Name of the modality that holds the hashed titles and categories."""

_WORD = re.compile(r"\w+")


def content_features(
    titles: Sequence[str | None], categories: Sequence[Sequence[str]], *, n_features: int
) -> NDArray[np.float32]:
    """Signed feature hashing of title words and categories, weighted by rarity.

    It needs no vocabulary and no download, and the words of a new item have the same features as
    those of known items.

    Args:
        titles: By item_idx − 1.
        categories: By item_idx − 1.
        n_features: Width of the hash table.

    Returns:
        `[n_items + 1, n_features]` by item_idx. Rows have length 1, or 0 for an item without
        content; row 0 is padding.

    Example:
        >>> features = content_features(["Heat", None], [["Crime"], []], n_features=8)
        >>> features.shape, np.linalg.norm(features, axis=1).round(3).tolist()
        ((3, 8), [0.0, 1.0, 0.0])

    Source: Weinberger et al. 2009, arXiv:0902.2206.
    """
    terms = [
        {f"word:{word}" for word in _WORD.findall((title or "").lower())}
        | {f"category:{category.lower()}" for category in of_item}
        for title, of_item in zip(titles, categories, strict=True)
    ]
    rows = np.repeat(np.arange(1, len(terms) + 1), [len(of_item) for of_item in terms])
    flat = [term for of_item in terms for term in sorted(of_item)]
    unique, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    hashes = np.array([crc32(str(term).encode()) for term in unique], np.int64)
    weights = np.log(1 + len(terms) / counts) * np.where(hashes & 1, 1.0, -1.0)
    features = np.zeros((len(terms) + 1, n_features), np.float32)
    if flat:
        np.add.at(features, (rows, (hashes >> 1)[inverse] % n_features), weights[inverse])
    return _unit_rows(features)


def embedding_features(column: pl.Series) -> NDArray[np.float32]:
    """An embedding column of the catalogue as features.

    Args:
        column: By item_idx − 1, lists of equal width; null for an item without an embedding.

    Returns:
        `[n_items + 1, width]` by item_idx; rows have length 1, or 0 for an item without one.
    """
    present = column.drop_nulls()
    width = 0 if present.is_empty() else len(present[0])
    features = np.zeros((len(column) + 1, width), np.float32)
    rows = np.flatnonzero(column.is_not_null().to_numpy()) + 1
    if len(rows):
        features[rows] = present.explode().to_numpy().reshape(len(rows), width)
    return _unit_rows(features)


def _unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, np.finfo(np.float32).tiny)
