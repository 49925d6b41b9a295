"""Labels that were made elsewhere become a store of the sparse layout."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.artifacts import sha256_file
from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.soft_labels.description import LABELS, SoftLabelError
from recsys_core.data.soft_labels.label_file import ROW
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.data.soft_labels.sparse_writing import describe_sparse, write_sparse_labels
from recsys_core.json_file import JsonFile

UNKNOWN_USERS = "of users without a history"
OUTSIDE = "outside of the training events"
OTHER_ITEM = "whose last_item_id is another item"
NO_ITEM = "without any known item"
UNKNOWN_ITEMS = "unknown items"
REPEATED_ITEMS = "repetitions of an item"
CUT_ITEMS = "items beyond the longest list kept"


class ImportSummary(JsonFile):
    """What an import read, kept and dropped; `import.json` of the store.

    Attributes:
        source: Name of the file.
        source_sha256: Its checksum.
        rows: Its rows.
        labels: Rows that became a label.
        dropped_rows: Number of the others by reason.
        dropped_items: Number of list entries left out by reason, of rows that became a label or
            had no known item.
    """

    file_name = "import.json"

    source: str
    source_sha256: str
    rows: int
    labels: int
    dropped_rows: dict[str, int]
    dropped_items: dict[str, int]


def import_labels(
    table: pl.DataFrame,
    source: Path,
    folder: Path,
    *,
    teacher: str,
    items: pl.DataFrame,
    item_index_sha256: str,
    buckets: Sequence[Path],
    trained_through: str | None,
    max_items: int,
) -> ImportSummary:
    """Write a store of the labels that fit the catalogue and the training events.

    Args:
        table: See `label_file.read_label_file`.
        source: The file that it was read from.
        folder: The store to write; empty, or not there.
        teacher: Name of the teacher.
        items: `item_id`, `item_idx` of the whole catalogue.
        item_index_sha256: Hash of its ids.
        buckets: Files of histories.
        trained_through: The teacher's training events were before this, ISO 8601; None: unknown.
        max_items: Longest list to keep; longer ones are cut.

    Raises:
        SoftLabelError: The folder is not empty, or no label fits.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} is not empty. Name another folder, or delete it."
        raise SoftLabelError(msg)
    longest = table.select(pl.col("item_ids").list.len().max()).item()
    shape = SparseShape(
        max(1, min(longest, max_items)),
        with_logits="scores" in table.columns,
        with_normalizer="log_normalizer" in table.columns,
    )
    rows: Counter[str] = Counter({UNKNOWN_USERS: len(table)})
    entries: Counter[str] = Counter()
    labels = 0
    index = items.select("item_id", pl.col("item_idx").cast(pl.Int32))
    for path in buckets:
        part = _bucket_rows(table, path, shape, index, rows, entries)
        labels += write_sparse_labels(folder / LABELS / path.name, shape, [part])
    dropped = {reason: n for reason, n in rows.items() if n}
    if not labels:
        shutil.rmtree(folder)
        found = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        msg = (
            f"No row of {source} fits the catalogue and the training events: {found}. Ids must be "
            "those of the source data (user ids that are hashed already need --hashed), and "
            "positions count from each user's first event."
        )
        raise SoftLabelError(msg)
    summary = ImportSummary(
        source=source.name,
        source_sha256=sha256_file(source),
        rows=len(table),
        labels=labels,
        dropped_rows=dropped,
        dropped_items={reason: n for reason, n in entries.items() if n},
    )
    summary.save(folder)
    describe_sparse(
        folder,
        teacher=teacher,
        item_index_sha256=item_index_sha256,
        n_items=len(items),
        trained_through=trained_through,
        shape=shape,
    )
    return summary


def _bucket_rows(
    table: pl.DataFrame,
    bucket: Path,
    shape: SparseShape,
    index: pl.DataFrame,
    dropped: Counter[str],
    entries: Counter[str],
) -> SparseRows:
    """The labels of one bucket; counts what is dropped."""
    histories = read_training_histories([bucket])
    users = pl.DataFrame(
        {
            "user_id": histories.user_ids,
            "start": histories.starts[:-1],
            "length": histories.lengths,
        }
    )
    mine = table.join(users, on="user_id", how="inner", maintain_order="left")
    dropped[UNKNOWN_USERS] -= len(mine)
    is_inside = (pl.col("position") >= 0) & (pl.col("position") < pl.col("length") - 1)
    inside = mine.filter(is_inside).with_columns(event=pl.col("start") + pl.col("position"))
    dropped[OUTSIDE] += len(mine) - len(inside)
    agreeing = _agreeing(inside, histories, index)
    dropped[OTHER_ITEM] += len(inside) - len(agreeing)
    lists = _lists(agreeing, shape, index, entries)
    kept = agreeing.filter(pl.col(ROW).is_in(lists[ROW].implode()))
    dropped[NO_ITEM] += len(agreeing) - len(kept)
    events = kept["event"].to_numpy()
    at = np.searchsorted(kept[ROW].to_numpy(), lists[ROW].to_numpy()), lists["place"].to_numpy()
    top_ids = np.zeros((len(kept), shape.top_k), np.int32)
    top_ids[at] = lists["item_idx"].to_numpy()
    logits = normalizer = None
    if shape.with_logits:
        logits = np.zeros(top_ids.shape, np.float32)
        logits[at] = lists["scores"].to_numpy()
    if shape.with_normalizer:
        normalizer = _of_catalogue(kept, index)
    return SparseRows(
        kept["user_id"],
        kept["position"].to_numpy().astype(np.int32),
        prefix_hashes(histories.items, histories.starts)[events],
        top_ids,
        logits,
        normalizer,
    )


def _agreeing(
    rows: pl.DataFrame, histories: ResidentHistories, index: pl.DataFrame
) -> pl.DataFrame:
    """The rows whose last item, if they name one, is the item of that event."""
    if "last_item_id" not in rows.columns:
        return rows
    named = rows.select(item_id="last_item_id").join(
        index, on="item_id", how="left", maintain_order="left"
    )
    read = pl.Series(histories.items[rows["event"].to_numpy()], dtype=pl.Int32)
    return rows.filter(named["item_idx"].eq_missing(read))


def _of_catalogue(rows: pl.DataFrame, index: pl.DataFrame) -> NDArray[np.float32]:
    """The normalisers without the items of a list that the catalogue lacks."""
    entries = rows.select(ROW, "log_normalizer", "item_ids", "scores").explode("item_ids", "scores")
    distinct = entries.unique([ROW, "item_ids"], keep="first")
    share = (pl.col("scores") - pl.col("log_normalizer")).exp()
    is_known = pl.col("item_ids").is_in(index["item_id"].implode())
    known, unknown = share.filter(is_known).sum(), share.filter(~is_known).sum()
    # Rounding may leave less than the known items have.
    left = distinct.group_by(ROW).agg(pl.max_horizontal(1 - unknown, known).log().alias("left"))
    both = rows.select(ROW, "log_normalizer").join(left, on=ROW, maintain_order="left")
    return (both["log_normalizer"] + both["left"]).to_numpy().astype(np.float32)


def _lists(
    rows: pl.DataFrame, shape: SparseShape, index: pl.DataFrame, dropped: Counter[str]
) -> pl.DataFrame:
    """The kept entries of all lists: `row`, `place`, `item_idx` and perhaps `scores`."""
    values = ["item_ids", "scores"] if shape.with_logits else ["item_ids"]
    entries = (
        rows.select(ROW, *values)
        .explode(values, empty_as_null=False)
        .rename({"item_ids": "item_id"})
        .join(index, on="item_id", how="left", maintain_order="left")
    )
    known = entries.drop_nulls("item_idx")
    distinct = known.unique([ROW, "item_idx"], keep="first", maintain_order=True)
    placed = distinct.with_columns(place=pl.int_range(pl.len()).over(ROW))
    kept = placed.filter(pl.col("place") < shape.top_k)
    dropped[UNKNOWN_ITEMS] += len(entries) - len(known)
    dropped[REPEATED_ITEMS] += len(known) - len(distinct)
    dropped[CUT_ITEMS] += len(placed) - len(kept)
    return kept
