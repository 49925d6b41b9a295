"""Settings of the source files, and the identity of a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from recsys_core.artifacts import digest
from recsys_core.data.schema import ITEMS, SCHEMA_VERSION
from recsys_core.data.sources.presets import PRESETS, Preset
from recsys_core.settings import Settings

Format = Literal["csv", "parquet", "jsonl", "movielens", "amazon-2018", "amazon-2023"]

Location = Annotated[Path | str, BeforeValidator(str), WithJsonSchema({"type": "string"})]
"""A path on this machine, or an s3:// URI."""


class SourceError(ValueError):
    """A source can't be read; the message names the file, the problem and the remedy."""


class InteractionColumns(Settings):
    """The columns of the interaction files."""

    user_id: str = Field(default="user_id", min_length=1, description="Column of the user's id.")
    item_id: str = Field(default="item_id", min_length=1, description="Column of the item's id.")
    timestamp: str = Field(
        default="timestamp", min_length=1, description="Column of the time or order."
    )
    event_type: str | None = Field(
        default=None,
        description="Column of the kind of event. Unset: `event_type` where a file has it.",
    )
    weight: str | None = Field(
        default=None,
        description="Column of a rating or quantity. Unset: `weight` where a file has it.",
    )


class ItemColumns(Settings):
    """The columns of the catalogue; all other columns are kept as they are."""

    item_id: str = Field(default="item_id", min_length=1, description="Column of the item's id.")
    title: str | None = Field(
        default=None, description="Column of the title. Unset: `title` where a file has it."
    )
    categories: str | None = Field(
        default=None,
        description="Column of the categories. Unset: `categories` where a file has it.",
    )
    available_from: str | None = Field(
        default=None,
        description="Column of the time at which the item entered the catalogue, in "
        "`timestamp_unit`. Unset: `available_from` where a file has it.",
    )
    retired_from: str | None = Field(
        default=None,
        description="Column of the time from which the item is no longer offered, in "
        "`timestamp_unit`; empty while it is offered. Unset: `retired_from` where a file has it.",
    )
    embeddings: tuple[str, ...] = Field(
        default=(),
        description="Columns of embeddings (of text, images, audio): lists of numbers, or text "
        "such as [0.1, 0.2]. All vectors of a column have one width; empty for an item with none.",
    )
    category_separator: str = Field(
        default="|",
        min_length=1,
        description="Separator of categories that are written as one text.",
    )
    no_category: str = Field(
        default="", description="Text that means no category. Empty: there is no such text."
    )


class S3Config(Settings):
    """The S3 server. Keys come from the environment only (AWS_ACCESS_KEY_ID and so on)."""

    endpoint: str | None = Field(
        default=None,
        description="Address of an S3 server other than Amazon's, such as http://127.0.0.1:9000.",
    )
    region: str | None = Field(default=None, description="Region of the bucket.")


class ReadyConfig(Settings):
    """The marker file to wait for before the sources are read."""

    marker: str | None = Field(
        default=None,
        min_length=1,
        description="File whose presence says that the export is complete: a path inside the "
        "folder of the interactions, in which {date} is the day before the run date, for example "
        "{date}/_SUCCESS. Unset: the night does not wait.",
    )
    timeout_minutes: float = Field(
        default=120, ge=0, description="Minutes to wait; after that the night fails."
    )
    poll_seconds: float = Field(
        default=30, gt=0, description="Seconds between two checks for the marker."
    )


class SourceConfig(Settings):
    """The interaction and item files, and how to read them."""

    format: Format = Field(
        default="csv",
        description="Format of the files. `movielens`: `interactions` is a folder with "
        "ratings.csv and movies.csv, or ratings.dat and movies.dat; `amazon-2018`, `amazon-2023`: "
        "JSON lines of Amazon reviews of that release. These set the columns themselves.",
    )
    interactions: Location = Field(
        description="File, folder (with its subfolders) or glob of the interactions, here or on "
        "s3://: .csv, .jsonl (both also .gz, .zst) or .parquet. A file is identified by its path "
        "inside the folder; parts such as date=2026-01-31 of that path are columns.",
    )
    items: Location | None = Field(
        default=None, description="File, folder or glob of the item catalogue, in the same format."
    )
    s3: S3Config = Field(default=S3Config(), description="The S3 server of s3:// paths.")
    ready: ReadyConfig = Field(default=ReadyConfig(), description="A marker file to wait for.")
    columns: InteractionColumns = Field(
        default=InteractionColumns(),
        description="Columns of the interaction files.",
    )
    item_columns: ItemColumns = Field(
        default=ItemColumns(),
        description="Columns of the item files.",
    )
    items_are_complete: bool = Field(
        default=False,
        description="Whether the item files are the whole catalogue: an item that is no longer in "
        "any of them is then retired until it is listed again.",
    )
    max_retired_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Largest share (0 to 1) of the offered items that may be missing from a "
        "complete catalogue. If more are missing, it counts as broken and the night fails.",
    )
    separator: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        description="Character between the fields of a CSV file.",
    )
    encoding: str = Field(
        default="utf-8", description="Encoding of text files: utf-8, latin-1, cp1252 and the like."
    )
    event_types: dict[str, float] = Field(
        default={},
        description="Kinds of events that count, each with a factor for its weight; rows of "
        "another kind are quarantined. Empty: all kinds count, with factor 1.",
    )
    max_events_per_day: int | None = Field(
        default=10_000,
        ge=1,
        description="Most events of a user on one UTC day. A user with more counts as a bot: the "
        "rows of that day are quarantined. Unset: no limit.",
    )
    timestamp_kind: Literal["time", "order"] = Field(
        default="time",
        description="`time`: the timestamp is a time. `order`: it only orders a user's events; "
        "allows leave-one-out evaluation only.",
    )
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso"] = Field(
        default="s",
        description="Unit of timestamps since 1970-01-01 UTC, or `iso` for text such as "
        "2026-01-31T12:00:00Z. Ignored for Parquet columns that are times.",
    )
    timestamp_format: str | None = Field(
        default=None,
        min_length=2,
        description="Format of written timestamps, as for strptime, for example %d.%m.%Y %H:%M; "
        "replaces timestamp_unit.",
    )
    timestamp_zone: str = Field(
        default="UTC",
        description="Time zone of written timestamps that state none. For the repeated hour at the "
        "end of daylight saving time, the first occurrence is used.",
    )
    timezone: str = Field(
        default="UTC", description="Time zone of the run date, for example Europe/Berlin."
    )
    default_event_type: str = Field(
        default="interaction", min_length=1, description="Kind of events without one."
    )
    max_quarantined_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share (0 to 1) of bad rows among the new rows; a larger one fails the "
        "night before training.",
    )
    hash_user_ids: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds a key of at least 16 bytes: the lake then "
        "holds user ids hashed with it. For a new workspace only. Unset: ids stay as they are.",
    )

    @field_validator("item_columns")
    @classmethod
    def _vectors_of_their_own(cls, columns: ItemColumns) -> ItemColumns:
        names = columns.embeddings
        others = {name for name in columns.model_dump(exclude={"embeddings"}).values() if name}
        taken = others | set(ITEMS.schema)
        twice = sorted({name for name in names if name in taken or names.count(name) > 1})
        if twice:
            msg = f"embeddings: {twice[0]!r} is named twice or means something else already"
            raise ValueError(msg)
        return columns

    @field_validator("timezone", "timestamp_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError) as error:
            msg = f"unknown time zone {name!r}; use a name such as UTC or Europe/Berlin"
            raise ValueError(msg) from error
        return name

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            line_end = "\n".encode(name)
        except LookupError as error:
            msg = f"unknown encoding {name!r}; use a name such as utf-8 or cp1252"
            raise ValueError(msg) from error
        if line_end != b"\n":
            msg = f"{name} can't be read line by line; export the files as utf-8"
            raise ValueError(msg)
        return name

    def resolved(self) -> Self:
        """The same settings, with a preset replaced by its settings."""
        preset = PRESETS.get(self.format)
        return self if preset is None else self.model_copy(update=self._spelled_out(preset))

    def mapping(self, table: str) -> str:
        """Digest of the settings that decide how the files of a table are read.

        Args:
            table: "interactions" or "items".
        """
        relevant = {
            "separator",
            "encoding",
            "timestamp_unit",
            "timestamp_format",
            "timestamp_zone",
            "format",
        } | (
            {
                "columns",
                "timestamp_kind",
                "timezone",
                "default_event_type",
                "event_types",
                "max_events_per_day",
            }
            if table == "interactions"
            else {"item_columns"}
        )
        settings = self.resolved().model_dump(mode="json", include=relevant)
        return digest([SCHEMA_VERSION, table, settings])

    def _spelled_out(self, preset: Preset) -> dict[str, Any]:
        folder = str(self.interactions).rstrip("/")
        places = (
            {}
            if preset.files is None
            else {name: f"{folder}/{file}" for name, file in preset.files.items()}
        )
        return {
            "format": preset.format,
            "columns": InteractionColumns(**preset.columns),
            "item_columns": self.item_columns.model_copy(update=preset.item_columns),
            "separator": ",",
            "encoding": preset.encoding,
            "timestamp_kind": "time",
            "timestamp_unit": preset.timestamp_unit,
            "timestamp_format": None,
            **places,
        }


@dataclass(frozen=True)
class SourceFile:
    """A file to ingest.

    Attributes:
        table: "interactions" or "items".
        name: `table` / path inside the configured folder; identifies the file in all nights.
        location: Path or s3:// URI.
        stamp: Size and time of the last change, known without reading the file. A change that
            keeps both goes unnoticed.
    """

    table: str
    name: str
    location: str
    stamp: str
