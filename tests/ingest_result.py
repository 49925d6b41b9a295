"""What ingest says, for tests of the stages that follow it."""

from datetime import date
from typing import Any

from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import TABLES
from tasks.contracts.ingest import IngestResult


def ingest_result(lake: Lake, **changed: Any) -> IngestResult:
    """The lake as it is now, filled by no file."""
    fields = {
        "versions": {table.name: lake.version(table.name) for table in TABLES},
        "files": (),
        "reasons": {},
        "new_rows": 0,
        "new_dates": (),
        "n_items": lake.item_index().height,
        "item_index_sha256": "index",
        "timestamp_kind": "time",
        "run_date": date(2026, 3, 10),
        "available_until": "2026-03-10T00:00:00+00:00",
        "max_quarantined_share": 0.05,
    }
    return IngestResult.model_validate(fields | changed)
