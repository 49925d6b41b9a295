"""The data vocabulary: the lake's tables, what their columns mean and which values they allow.

Cleaning and the validation suite both read these definitions, so they cannot disagree.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from recsys_core.units import SECONDS_PER_DAY

SCHEMA_VERSION = 2
"""Part of every source's identity: raise it to have all files cleaned and stored again."""

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""A timestamp outside of these bounds is a mistake, such as a wrong unit or a placeholder."""

TIMESTAMP = pl.Datetime("us", "UTC")
VECTOR = pl.List(pl.Float32())
"""An embedding."""

MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_DAY = SECONDS_PER_DAY * MICROSECONDS_PER_SECOND


@dataclass(frozen=True)
class Column:
    """One column of a table of the lake.

    Attributes:
        name: Its name in the lake.
        dtype: Its Polars type.
        required: Whether null is refused.
        minimum: Smallest allowed value; None: no bound.
        maximum: Values must be smaller than this; None: no bound.
        finite: Whether NaN and infinities are refused.
    """

    name: str
    dtype: pl.DataType
    required: bool = True
    minimum: datetime | float | None = None
    maximum: datetime | float | None = None
    finite: bool = False


@dataclass(frozen=True)
class Table:
    """A Delta table of the lake.

    Attributes:
        name: Its folder.
        columns: In stored order.
        partition_by: Column whose values split the table into folders.
        key: Columns that identify a row; empty if rows have no identity.
    """

    name: str
    columns: tuple[Column, ...]
    partition_by: str | None = None
    key: tuple[str, ...] = ()

    @property
    def schema(self) -> pl.Schema:
        """Column names and types."""
        return pl.Schema({column.name: column.dtype for column in self.columns})


INTERACTIONS = Table(
    "interactions",
    (
        Column("user_id", pl.String()),
        Column("item_id", pl.String()),
        Column("timestamp", TIMESTAMP, minimum=EARLIEST, maximum=LATEST),
        Column("arrival", pl.Int64(), minimum=0),
        Column("event_type", pl.String()),
        Column("weight", pl.Float32(), finite=True),
        Column("source", pl.String()),
        Column("date", pl.Date()),
    ),
    partition_by="date",
    key=("user_id", "item_id", "timestamp", "event_type"),
)
"""One row per event. `arrival` is the order in the sources and breaks ties of `timestamp`."""

ITEMS = Table(
    "items",
    (
        Column("item_id", pl.String()),
        Column("title", pl.String(), required=False),
        Column("categories", pl.List(pl.String())),
        Column("available_from", TIMESTAMP, required=False, minimum=EARLIEST, maximum=LATEST),
        Column("retired_from", TIMESTAMP, required=False, minimum=EARLIEST, maximum=LATEST),
        Column("listed", pl.Boolean()),
        Column("valid_from", pl.Date()),
    ),
    partition_by="valid_from",
    key=("item_id", "valid_from"),
)
"""The catalogue: one row per version of an item, dated by the night that brought it.

`listed` is false where a complete catalogue no longer had the item. Embeddings and further columns
of the sources are kept. `recsys_core.data.catalogue.versions` reads and writes it.
"""

ITEM_INDEX = Table(
    "item_index",
    (Column("item_id", pl.String()), Column("item_idx", pl.Int32(), minimum=1)),
    key=("item_id",),
)
"""item_id to item_idx, 1 … n_items; append-only."""

QUARANTINE = Table(
    "quarantine",
    (
        Column("source", pl.String()),
        Column("row", pl.Int64(), minimum=1),
        Column("reason", pl.String()),
        Column("user_id", pl.String(), required=False),
        Column("raw", pl.String()),
        Column("date", pl.Date()),
    ),
)
"""Refused rows: source, row, reason, user (if known), text (JSON) and run date."""

EVENT_TYPES = Table(
    "event_types",
    (Column("event_type", pl.String()), Column("code", pl.Int8(), minimum=0)),
    key=("event_type",),
)
"""Kinds of events in order of appearance; append-only, because histories hold the codes."""

MAX_EVENT_TYPES = 127
"""As many as an int8 holds; more kinds are a sign of a wrong column."""

SOURCES = Table(
    "sources",
    (
        Column("source", pl.String()),
        Column("ordinal", pl.Int64(), minimum=0),
        Column("fingerprint", pl.String()),
        Column("stamp", pl.String()),
        Column("mapping", pl.String()),
        Column("run_date", pl.Date()),
        Column("rows_in", pl.Int64(), minimum=0),
        Column("rows_kept", pl.Int64(), minimum=0),
        Column("rows_quarantined", pl.Int64(), minimum=0),
        Column("rows_duplicate", pl.Int64(), minimum=0),
        Column("reasons", pl.String()),
        Column("dates", pl.List(pl.Date())),
        Column("validated", pl.Boolean()),
    ),
    key=("source",),
)
"""The ingest log: one row per file, as it was last read."""

HISTORY_LISTS = ("item_idx", "timestamp", "event_type", "target_weight")
"""The columns of histories that hold one value per event."""

HISTORIES = pl.Schema(
    {
        "user_id": pl.String(),
        "item_idx": pl.List(pl.Int32()),
        "timestamp": pl.List(pl.Int64()),
        "event_type": pl.List(pl.Int8()),
        "target_weight": pl.List(pl.Float32()),
        "train_end": pl.Int32(),
        "validation_end": pl.Int32(),
    }
)
"""A bucket file of histories: one row per user, with the user's events oldest first.

`timestamp` is in microseconds since 1970, `event_type` the code of the kind, `target_weight` the
weight in the loss (0: no target). The events [0, train_end) are for training, [train_end,
validation_end) for validation, the rest for the test.
"""

TABLES = (INTERACTIONS, ITEMS, ITEM_INDEX, EVENT_TYPES, QUARANTINE, SOURCES)

WITHHELD = "withheld"
"""Replaces, in the quarantine, the text of a line that could name a user."""
WITHHELD_ROW = json.dumps({"line": WITHHELD}, separators=(",", ":"))
"""The same as a row of the quarantine."""

UNBALANCED_QUOTES = "unbalanced quotes"
WRONG_FIELD_COUNT = "wrong number of fields"
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not a JSON object"
AFTER_RUN_DATE = "timestamp on or after the run date"
"""Not wrong, only early: the rows are read again on a later run date."""
UNKNOWN_EVENT_TYPE = "unknown event_type"
TOO_MANY_EVENTS = "too many events of the user in a day"
FORGOTTEN_USER = "forgotten user"
"""The user is on the denylist; the row's text is withheld."""
NOT_THE_FILES_FAULT = (AFTER_RUN_DATE, FORGOTTEN_USER)
"""Reasons that say nothing against the file."""


def missing(column: str) -> str:
    """Reason for a row without a required value."""
    return f"missing {column}"


def unreadable(column: str) -> str:
    """Reason for a value that is not of the column's type."""
    return f"unreadable {column}"


def out_of_range(column: str) -> str:
    """Reason for a value that the column does not allow."""
    return f"{column} out of range"


def other_width(column: str) -> str:
    """Reason for a vector that is longer or shorter than the others of its column."""
    return f"{column} of another width"


def not_finite(column: str) -> str:
    """Reason for NaN or infinity."""
    return f"{column} not finite"
