"""What ingest says: the lake's versions that the night reads, and what became of each file."""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from recsys_core.data.schema import INTERACTIONS
from recsys_core.json_file import JsonFile

TimestampKind = Literal["time", "order"]


class FileResult(BaseModel):
    """What became of a source file's rows.

    Attributes:
        source: Name of the file.
        fingerprint: Fingerprint of its content.
        new: Whether no night has validated its rows yet.
        rows_in: Number of rows; the sum of the three that follow.
        rows_kept: Number of rows added to the lake.
        rows_quarantined: Number of refused rows.
        rows_duplicate: Number of rows that were duplicates.
        reasons: Number of refused rows by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    fingerprint: str
    new: bool
    rows_in: int
    rows_kept: int
    rows_quarantined: int
    rows_duplicate: int
    reasons: dict[str, int]

    @property
    def is_interactions(self) -> bool:
        """Whether the file has interactions, not items."""
        return self.source.startswith(f"{INTERACTIONS.name}/")


class IngestResult(JsonFile):
    """What the night reads from the lake, and how it came there.

    Attributes:
        versions: Version of each of the lake's tables, by the table's name.
        files: All files of the night, sorted by name.
        reasons: Number of refused rows by reason, of the new files.
        new_rows: Number of rows that new files of interactions added to the lake.
        new_dates: Dates of these rows, sorted.
        n_items: Number of items in the item index.
        item_index_sha256: Checksum of the item ids in the order of the index.
        timestamp_kind: Whether the timestamps are times, or an order only.
        run_date: The night's date.
        available_until: All interactions are before this time, ISO 8601.
        max_quarantined_share: Share of refused rows above which validation fails.
    """

    file_name: ClassVar[str] = "ingest.json"

    versions: dict[str, int]
    files: tuple[FileResult, ...]
    reasons: dict[str, int]
    new_rows: int
    new_dates: tuple[date, ...]
    n_items: int
    item_index_sha256: str
    timestamp_kind: TimestampKind
    run_date: date
    available_until: str
    max_quarantined_share: float

    @property
    def new_files(self) -> list[FileResult]:
        """The files whose rows no night has validated yet."""
        return [file for file in self.files if file.new]


def total_rows(files: Iterable[FileResult]) -> dict[str, int]:
    """Sums of the files' rows: `in`, `kept`, `quarantined` and `duplicate`."""
    files = list(files)
    return {
        "in": sum(file.rows_in for file in files),
        "kept": sum(file.rows_kept for file in files),
        "quarantined": sum(file.rows_quarantined for file in files),
        "duplicate": sum(file.rows_duplicate for file in files),
    }


def total_reasons(files: Iterable[FileResult]) -> Counter[str]:
    """Number of refused rows of all files by reason."""
    reasons = Counter[str]()
    for file in files:
        reasons.update(file.reasons)
    return reasons
