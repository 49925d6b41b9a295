"""A batch of interaction files: read in chunks, checked, and spooled to the disk for the merge."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from recsys_core.data.ingest.clean_interactions import clean_interactions
from recsys_core.data.ingest.user_ids import UserIdPolicy, apply_user_id_policy
from recsys_core.data.io.prefetch import one_ahead
from recsys_core.data.io.spool import Spool
from recsys_core.data.lake.ingest_log import IngestedFile
from recsys_core.data.schema import INTERACTIONS, QUARANTINE
from recsys_core.data.sources.config import SourceConfig, SourceError, SourceFile
from recsys_core.data.sources.discovery import fingerprint, local_file
from recsys_core.data.sources.reader import read_chunks
from recsys_core.settings import Progress


@dataclass(frozen=True)
class ToRead:
    """A file that is to be read.

    Attributes:
        source: The file.
        entry: Its entry in the ingest log so far.
        fingerprint: Fingerprint of the content that the night decided to read at its start.
    """

    source: SourceFile
    entry: IngestedFile
    fingerprint: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.source.name

    @contextmanager
    def opened(self, config: SourceConfig, scratch: Path) -> Generator[Path, None, None]:
        """Give the file on the local disk.

        Args:
            config: Settings of the sources, for S3.
            scratch: Folder for the copy of a remote file.

        Raises:
            SourceError: The file can't be read, or has changed since the night began.
        """
        with local_file(self.source, config, scratch) as path:
            if fingerprint(self.source) != self.fingerprint:
                msg = f"{self.source.location} changed while the night was running. Run it again."
                raise SourceError(msg)
            yield path


@dataclass
class FileTally:
    """Counts of a file's rows.

    Attributes:
        n_rows: Number of rows in the file.
        reasons: Number of refused rows by reason.
        dates: Dates of the rows that were not refused.
    """

    n_rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    dates: set[date] = field(default_factory=set[date])


class IngestBatch:
    """Files that are merged into the lake together.

    Args:
        scratch: Folder for the spooled rows.

    Attributes:
        valid: The files' valid rows, duplicates among them.
        refused: The files' rows for the quarantine.
        tallies: Counts by file name.
        files: The files.
    """

    def __init__(self, scratch: Path) -> None:
        self.valid = Spool(scratch / "valid", INTERACTIONS.schema)
        self.refused = Spool(scratch / "refused", QUARANTINE.schema)
        self.tallies: dict[str, FileTally] = {}
        self.files: list[ToRead] = []

    @property
    def n_rows(self) -> int:
        """Number of rows of all files."""
        return self.valid.n_rows + self.refused.n_rows

    def discard(self) -> None:
        """Delete the spooled rows."""
        self.valid.discard()
        self.refused.discard()

    def read(
        self,
        file: ToRead,
        config: SourceConfig,
        *,
        user_id_policy: UserIdPolicy,
        run_date: date,
        scratch: Path,
        progress: Progress,
    ) -> None:
        """Read a file and add its rows.

        Args:
            file: The file.
            config: Resolved settings of the sources.
            user_id_policy: Whether user ids are hashed, and whose rows are refused.
            run_date: The night's date.
            scratch: Folder for the copy of a remote file.
            progress: Called after each chunk; the fraction stays 0.

        Raises:
            SourceError: The file can't be read, or has changed since the night began.
        """
        self.files.append(file)
        tally = self.tallies[file.name] = FileTally()
        with file.opened(config, scratch) as path:
            for raw in one_ahead(read_chunks(file.source, path, config)):
                checked = clean_interactions(
                    apply_user_id_policy(raw, user_id_policy, source=file.name),
                    config,
                    source=file.name,
                    ordinal=file.entry.ordinal,
                    run_date=run_date,
                )
                self.valid.append(checked.valid)
                self.refused.append(checked.quarantined)
                tally.n_rows += raw.height
                tally.dates.update(checked.valid["date"].unique())
                tally.reasons.update(dict(checked.quarantined.group_by("reason").len().iter_rows()))
                progress(0, f"{file.name}: {tally.n_rows:,} rows read")
