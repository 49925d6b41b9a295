"""The source files of a night: how a user describes them, which there are, what they contain."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from recsys_core.artifacts import digest, sha256_file
from recsys_core.data.schema import SCHEMA_VERSION
from recsys_core.settings import Settings

SUFFIXES = {"csv": (".csv", ".csv.gz"), "parquet": (".parquet",)}
_WILDCARDS = frozenset("*?[")
_SHOWN_NAMES = 5


class SourceError(ValueError):
    """A source can't be read; the message says which file, what was found and what to do."""


class InteractionColumns(Settings):
    """Which columns of the interaction files mean what."""

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
    """Which columns of the catalogue mean what; all others are carried along as they are."""

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
    category_separator: str = Field(
        default="|", min_length=1, description="What joins categories that are one text."
    )
    no_category: str = Field(
        default="", description="Text that stands for having no category; empty: there is none."
    )


class SourceConfig(Settings):
    """Where the interactions and items are, and how to read them."""

    format: Literal["csv", "parquet", "movielens"] = Field(
        default="csv",
        description="Format of the files. `movielens`: `interactions` is a folder with "
        "ratings.csv and movies.csv; the column settings are then ignored.",
    )
    interactions: Path = Field(
        description="File, folder (with its subfolders) or glob of the interactions: .csv, "
        ".csv.gz or .parquet. A file is known by its path inside the folder."
    )
    items: Path | None = Field(
        default=None, description="File, folder or glob of the item catalogue, in the same format."
    )
    columns: InteractionColumns = Field(
        default=InteractionColumns(),
        description="Columns of the interaction files.",
    )
    item_columns: ItemColumns = Field(
        default=ItemColumns(),
        description="Columns of the item files.",
    )
    separator: str = Field(
        default=",",
        min_length=1,
        max_length=1,
        description="Character between the fields of a CSV file.",
    )
    timestamp_kind: Literal["time", "order"] = Field(
        default="time",
        description="`time`: the timestamp is a time. `order`: it only orders a user's events; "
        "allows leave-one-out evaluation only.",
    )
    timestamp_unit: Literal["s", "ms", "us", "iso"] = Field(
        default="s",
        description="Unit of timestamps since 1970-01-01 UTC (seconds, milliseconds, "
        "microseconds), or `iso` for text such as 2026-01-31T12:00:00Z (UTC where no offset is "
        "given). Ignored for Parquet columns that are times.",
    )
    timezone: str = Field(
        default="UTC", description="Zone in which the run date begins, for example Europe/Berlin."
    )
    default_event_type: str = Field(
        default="interaction", min_length=1, description="Kind of the events that state none."
    )
    max_quarantined_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Largest share of bad rows (0 to 1) in what is new; more fail the night "
        "before training.",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError) as error:
            msg = f"unknown time zone {name!r}; use a name such as UTC or Europe/Berlin"
            raise ValueError(msg) from error
        return name

    def resolved(self) -> Self:
        """The same sources with the `movielens` preset spelled out."""
        if self.format != "movielens":
            return self
        return self.model_copy(
            update={
                "format": "csv",
                "interactions": self.interactions / "ratings.csv",
                "items": self.interactions / "movies.csv",
                "columns": InteractionColumns(
                    user_id="userId",
                    item_id="movieId",
                    timestamp="timestamp",
                    event_type=None,
                    weight="rating",
                ),
                "item_columns": ItemColumns(
                    item_id="movieId",
                    title="title",
                    categories="genres",
                    available_from=None,
                    category_separator="|",
                    no_category="(no genres listed)",
                ),
                "separator": ",",
                "timestamp_kind": "time",
                "timestamp_unit": "s",
            }
        )

    def mapping(self, table: str) -> str:
        """Digest of the settings that decide how this table's files are understood.

        Args:
            table: "interactions" or "items".
        """
        relevant = {"separator", "timestamp_unit", "format"} | (
            {"columns", "timestamp_kind", "timezone", "default_event_type"}
            if table == "interactions"
            else {"item_columns"}
        )
        settings = self.resolved().model_dump(mode="json", include=relevant)
        return digest([SCHEMA_VERSION, table, settings])


@dataclass(frozen=True)
class SourceFile:
    """A file to ingest.

    Attributes:
        table: "interactions" or "items".
        name: `table` / path inside the configured folder: the file's identity over the nights.
        path: Where it is now.
    """

    table: str
    name: str
    path: Path


def find_sources(config: SourceConfig) -> list[SourceFile]:
    """All files that the configuration names, interactions first, each kind sorted by name.

    Raises:
        SourceError: A path leads to no file.
    """
    config = config.resolved()
    places = [("interactions", config.interactions)]
    if config.items is not None:
        places.append(("items", config.items))
    return [
        SourceFile(table, f"{table}/{path.relative_to(root).as_posix()}", path)
        for table, place in places
        for root, path in _expand(table, place, SUFFIXES[config.format])
    ]


def source_fingerprint(config: SourceConfig) -> dict[str, str]:
    """The names of all source files, and the SHA-256 of their bytes.

    Raises:
        SourceError: A path leads to no file, or a file can't be read.
    """
    return {source.name: checksum(source.path) for source in find_sources(config)}


def checksum(path: Path) -> str:
    """SHA-256 of a source file.

    Raises:
        SourceError: The file can't be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        msg = f"{path} can't be read ({error.strerror}). Check the file and its permissions."
        raise SourceError(msg) from error


def _expand(table: str, place: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """Files behind a file, folder or glob, each with the folder that its name is relative to."""
    if place.is_file():
        return [(place.parent, place)]
    if place.is_dir():
        root, candidates = place, place.rglob("*")
    else:
        fixed = [part for part in place.parts if not _WILDCARDS & set(part)]
        root = Path(*place.parts[: _first_wildcard(place)])
        if len(fixed) == len(place.parts):
            msg = f"{place} does not exist. Set source.{table} to a file, a folder or a glob."
            raise SourceError(msg)
        candidates = root.glob(str(place.relative_to(root)))
    files = sorted(path for path in candidates if path.is_file() and _visible(path, root))
    chosen = [path for path in files if path.name.endswith(suffixes)]
    if not chosen:
        others = ", ".join(path.name for path in files[:_SHOWN_NAMES]) or "nothing"
        msg = (
            f"No {table} found: {place} holds no {' or '.join(suffixes)} file (there: {others}). "
            f"Put the export there, or change source.{table} or source.format."
        )
        raise SourceError(msg)
    return [(root, path) for path in chosen]


def _first_wildcard(place: Path) -> int:
    parts = enumerate(place.parts)
    return next((at for at, part in parts if _WILDCARDS & set(part)), len(place.parts))


def _visible(path: Path, root: Path) -> bool:
    """Not a draft of another tool: those begin with a dot or an underscore."""
    return not any(part.startswith((".", "_")) for part in path.relative_to(root).parts)
