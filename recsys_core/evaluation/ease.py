"""EASE: a linear item-item model in closed form, a strong baseline on sparse logs."""

# SciPy ships no types, and its sources infer badly.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.linalg import get_lapack_funcs

from recsys_core.data.histories.cases import FloatArray, IntArray, Ranker
from recsys_core.evaluation.item_knn import Counts, Matrix, popularity_below, training_matrix


class CatalogueTooLargeError(ValueError):
    """The model is a matrix of items × items, which would not fit."""


class PenaltyTooSmallError(ValueError):
    """The equations can't be solved in single precision."""


def ease_weights(products: Matrix, *, l2: float) -> FloatArray:
    """The item-item weights that best reconstruct who had what, without an item explaining itself.

    B minimises ‖X - X B‖² + l2 ‖B‖² with a diagonal of zeros: with P = (XᵀX + l2 I)⁻¹,
    B = I - P diag(P)⁻¹.

    >>> both_or_none = sparse.csr_array(np.array([[2.0, 2.0], [2.0, 2.0]], np.float32))
    >>> ease_weights(both_or_none, l2=2.0).tolist()
    [[0.0, 0.5], [0.5, 0.0]]

    Args:
        products: Sparse `[items, items]`, XᵀX: number of users who had both items.
        l2: Weight of the penalty, in users. Above 0.

    Returns:
        `[items, items]`; row = item in the history, column = scored item.

    Raises:
        PenaltyTooSmallError: In float32 the co-occurrences are nearly dependent.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", arXiv:1905.03375.
    """
    matrix = np.asfortranarray(products.toarray(), np.float32)
    diagonal = np.diag_indices_from(matrix)
    matrix[diagonal] += np.float32(l2)
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (matrix,))
    matrix, failed = potrf(matrix, overwrite_a=True)
    if failed:
        msg = (
            f"EASE can't be solved in single precision with l2 = {l2:g}: the items' co-occurrences "
            "are nearly dependent. Make l2 larger."
        )
        raise PenaltyTooSmallError(msg)
    matrix, _ = potri(matrix, overwrite_c=True)  # fills the upper triangle only
    own = matrix[diagonal].copy()
    matrix += matrix.T
    matrix /= -own
    matrix[diagonal] = 0
    return np.ascontiguousarray(matrix)  # SciPy would copy another order at each product


def ease_ranker(
    buckets: Sequence[Path],
    popularity: Counts,
    *,
    l2: float,
    max_items: int = 20_000,
    max_history: int = 1_000,
) -> Ranker:
    """Rank by the sum of the weights from all distinct items of the history.

    Equal scores, such as those after an empty history, are ordered by popularity.

    Args:
        buckets: Bucket files of histories: `item_idx`, `train_end`.
        popularity: `[n_items]` interactions of item_idx 1 … n_items.
        l2: See `ease_weights`.
        max_items: Most items with a training event. The time grows with their cube; memory at the
            peak is 8 bytes × their square, 3 GB for 20,000, and 8 bytes more for each pair that
            some user had. The ranker holds 4 bytes × their square.
        max_history: Newest training events of a user that count.

    Raises:
        CatalogueTooLargeError: More items have a training event.
        PenaltyTooSmallError: See `ease_weights`.
    """
    below = popularity_below(popularity)
    users = training_matrix(buckets, len(popularity), max_history=max_history)
    items = np.unique(users.indices)
    if len(items) > max_items:
        msg = (
            f"EASE is a matrix of items × items, and {len(items):,} items have a training event, "
            f"more than max_items = {max_items:,}. Raise it if {16e-9 * len(items) ** 2:.0f} GB of "
            "memory are free, or leave EASE out."
        )
        raise CatalogueTooLargeError(msg)
    users = sparse.csr_array(users[:, items])
    weights = ease_weights(users.T @ users, l2=l2)
    column_of = np.full(len(below), -1)
    column_of[items] = np.arange(len(items))

    def rank(histories: Sequence[IntArray]) -> FloatArray:
        scores = np.tile(below, (len(histories), 1))
        scores[:, items] += _distinct(histories, column_of, len(items)) @ weights
        return scores

    return rank


def _distinct(histories: Sequence[IntArray], column_of: IntArray, n_columns: int) -> Matrix:
    """Sparse `[batch, n_columns]` of ones: the known items of each history."""
    known = [np.unique(column_of[history]) for history in histories]
    known = [columns[columns >= 0] for columns in known]
    offsets = np.cumsum([0, *map(len, known)])
    columns = np.concatenate([np.empty(0, np.int64), *known])
    ones = np.ones(len(columns), np.float32)
    return sparse.csr_array((ones, columns, offsets), shape=(len(known), n_columns))
