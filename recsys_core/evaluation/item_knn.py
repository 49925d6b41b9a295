"""Item-kNN: a baseline that a model has to beat."""

# SciPy ships no types, and its sources infer badly.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from recsys_core.data.histories.cases import FloatArray, IntArray, Ranker
from recsys_core.data.histories.read import training_items
from recsys_core.evaluation.popularity import Counts, popularity_scores

Matrix = Any
"""A `scipy.sparse.csr_array`, which has no type stubs."""


def item_similarities(
    buckets: Sequence[Path],
    n_items: int,
    *,
    n_neighbours: int = 200,
    shrinkage: float = 0.05,
    max_history: int = 1_000,
    block_cells: int = 16_000_000,
) -> Matrix:
    """Each item's nearest neighbours by the cosine over the users who had both in training.

    Each user's row is scaled to unit length first, so a user with n items counts 1/n for each pair.
    Otherwise the heaviest users, who had nearly every item, would decide.

    Args:
        buckets: Bucket files of histories: `item_idx`, `train_end`.
        n_items: Length of the catalogue.
        n_neighbours: Most similar items that are kept per row; ties in the order of item_idx.
        shrinkage: Added to the denominator of the cosine, in users who had nothing else; lowers
            similarities that few users support.
        max_history: Newest training events of a user that count. It bounds the work for a single
            user, which grows with the square of their events.
        block_cells: Cells of the similarity matrix that are computed at once; bounds memory.

    Returns:
        Sparse `[n_items + 1, n_items + 1]` float32; row = item in the history, column = neighbour.

    Source: Sarwar et al. 2001, "Item-based collaborative filtering recommendation algorithms".
    """
    by_user = _with_unit_rows(training_matrix(buckets, n_items, max_history=max_history))
    by_item = sparse.csr_array(by_user.T)
    norms = np.sqrt(by_user.multiply(by_user).sum(axis=0))
    block = max(1, block_cells // (n_items + 1))
    rows = [
        _nearest(by_item[begin : begin + block] @ by_user, begin, norms, n_neighbours, shrinkage)
        for begin in range(0, n_items + 1, block)
    ]
    return sparse.csr_array(sparse.vstack(rows))


def item_knn_ranker(
    similarities: Matrix,
    popularity: Counts,
    *,
    n_recent: int = 20,
    half_life: float = 1.25,
    own_weight: float = 0,
) -> Ranker:
    """Rank by similarity to the newest items of the history, the newest weighing most.

    Items that are no neighbour of these, and all items after an empty history, rank by popularity.
    The defaults here and in `item_similarities` were tuned on the validation events of ml-1m.

    Args:
        similarities: See `item_similarities`.
        popularity: `[n_items]` interactions of item_idx 1 … n_items.
        n_recent: Newest events of a history that count.
        half_life: An event that is this many events older counts half as much.
        own_weight: Similarity of an item to itself. Above 0 what a user often had ranks high; for
            logs in which items may be recommended again.
    """
    scores_below = popularity_below(popularity)
    weights = np.exp2(-np.arange(n_recent) / half_life).astype(np.float32)
    width = len(scores_below)
    if own_weight:
        own = sparse.diags_array(np.full(width, own_weight, np.float32))
        similarities = sparse.csr_array(similarities + own)

    def rank(histories: Sequence[IntArray]) -> FloatArray:
        recent = [history[-n_recent:][::-1] for history in histories]
        lengths = [len(items) for items in recent]
        columns = np.concatenate([np.empty(0, np.int32), *recent])
        values = np.concatenate([weights[:0], *(weights[:length] for length in lengths)])
        offsets = np.cumsum([0, *lengths])
        context = sparse.csr_array((values, columns, offsets), shape=(len(histories), width))
        return (context @ similarities).toarray() + scores_below

    return rank


def training_matrix(buckets: Sequence[Path], n_items: int, *, max_history: int) -> Matrix:
    """Which user had which item in training.

    Args:
        buckets: Bucket files of histories: `item_idx`, `train_end`.
        n_items: Length of the catalogue.
        max_history: Newest training events of a user that count.

    Returns:
        Sparse `[users, n_items + 1]` float32 of ones.
    """
    return sparse.csr_array(
        sparse.vstack([_of_bucket(bucket, n_items, max_history) for bucket in buckets])
    )


def popularity_below(popularity: Counts) -> FloatArray:
    """`[n_items + 1]`: popularity so small that it only orders equal scores, up to 1e-6."""
    scores = popularity_scores(popularity, None)
    return scores / (1 + scores.max(initial=0)) * np.float32(1e-6)


def _of_bucket(bucket: Path, n_items: int, max_history: int) -> Matrix:
    items = training_items(bucket, newest=max_history)
    ones = np.ones(len(items.values), np.float32)
    shape = (len(items.lengths), n_items + 1)
    matrix = sparse.csr_array((ones, items.values, items.offsets), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _with_unit_rows(matrix: Matrix) -> Matrix:
    n_distinct = np.diff(matrix.indptr)
    matrix.data[:] = np.repeat(1 / np.sqrt(np.maximum(n_distinct, 1)), n_distinct)
    return matrix


def _nearest(
    products: Matrix, first_item: int, norms: FloatArray, n_neighbours: int, shrinkage: float
) -> Matrix:
    """Similarities from a block of products of columns; only the nearest of each row are kept."""
    products.sort_indices()
    kept = list(_nearest_rows(products, first_item, norms, n_neighbours, shrinkage))
    columns = np.concatenate([columns for columns, _ in kept])
    values = np.concatenate([values for _, values in kept])
    offsets = np.cumsum([0, *(len(columns) for columns, _ in kept)])
    return sparse.csr_array((values, columns, offsets), shape=products.shape)


def _nearest_rows(
    products: Matrix, first_item: int, norms: FloatArray, n_neighbours: int, shrinkage: float
) -> Iterator[tuple[IntArray, FloatArray]]:
    for row in range(products.shape[0]):
        part = slice(products.indptr[row], products.indptr[row + 1])
        columns = products.indices[part]
        item = first_item + row
        values = products.data[part] / (norms[item] * norms[columns] + np.float32(shrinkage))
        values = np.where(columns == item, 0, values)
        nearest = np.sort(np.argsort(-values, kind="stable")[:n_neighbours])
        yield columns[nearest], values[nearest]
