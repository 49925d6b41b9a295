"""The items of losses on a part of the catalogue: the top of a ranking, and drawn items."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.training.losses.seen import NO_CANDIDATE


def top_items(
    logits: Float[Tensor, "chunk items"], n_top: int
) -> tuple[Int[Tensor, "chunk top"], Bool[Tensor, "chunk top"]]:
    """Columns of the highest logits, best first, and which of them compete.

    Args:
        logits: An item that doesn't compete has the logit `NO_CANDIDATE`.
        n_top: How many; all, if there are fewer.
    """
    values, columns = logits.topk(min(n_top, logits.shape[1]), dim=1)
    return columns, values > NO_CANDIDATE


def drawn_at(
    drawn: Int[Tensor, "positions drawn"], rows: slice, n_positions: int
) -> Int[Tensor, "chunk drawn"]:
    """The drawn items of some positions.

    Raises:
        ValueError: There are not as many rows of drawn items as positions.
    """
    chosen = drawn[rows]
    if len(chosen) != n_positions:
        msg = f"Every position needs its drawn items: {n_positions} states, {len(chosen)} rows."
        raise ValueError(msg)
    return chosen


def check_n_top(n_top: int) -> None:
    """Refuse a ranking without items.

    Raises:
        ValueError: `n_top` is below 1.
    """
    if n_top < 1:
        msg = (
            f"n_top must be 1 or more, found {n_top}: without top items there is nothing to learn."
        )
        raise ValueError(msg)
