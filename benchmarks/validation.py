"""Validate the new rows of one night and print the seconds and the memory of the stage.

    python -m benchmarks.validation [--quick] [--data DIR] [--out FILE.json]

The lake is synthetic: eight dates of 1.7 M rows each, 5 M users, 1 M items with popularity 1/rank.
The last date is new, the seven others are trailing. The benchmark measures the body of the stage in
a process that has not loaded Great Expectations before, so the import counts. Another process
writes the lake, so its memory does not count. With --data the lake is kept there and reused.
"""

import multiprocessing
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import finish, options, peak_bytes
from recsys_core.artifacts import Artifact
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS
from tasks.contracts.ingest import FileResult, IngestResult

FIRST_DAY = date(2026, 1, 1)
N_DAYS = 8
N_USERS, N_ITEMS = 5_000_000, 1_000_000
EVENT_SHARES = {"click": 0.85, "cart": 0.1, "purchase": 0.05}
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(N_DAYS)]


def main() -> None:
    """Run the benchmark."""
    args = options(__doc__).parse_args()
    n_rows = 20_000 if args.quick else 1_700_000
    with tempfile.TemporaryDirectory() as temporary:
        workspace = args.data or Path(temporary)
        if not (workspace / "lake").exists():
            context = multiprocessing.get_context("spawn")
            writer = context.Process(target=write_lake, args=(workspace / "lake", n_rows))
            writer.start()
            writer.join()
            if writer.exitcode:
                raise SystemExit(writer.exitcode)
        figures = measure(workspace, n_rows)
    rows = [[name, value] for name, value in figures.items()]
    finish("validation", ["figure", "value"], rows, figures, args.out)


def write_lake(folder: Path, n_rows: int) -> None:
    """Write the dates, each in a commit of its own."""
    random = np.random.default_rng(0)
    popularity = np.cumsum(1 / np.arange(1, N_ITEMS + 1))
    Lake(folder)  # creates its partitioned tables
    for number, day in enumerate(DAYS):
        items = np.searchsorted(popularity, random.random(n_rows) * popularity[-1])
        events = pl.DataFrame(
            {
                "user_id": random.integers(0, N_USERS, n_rows),
                "item_id": items,
                "timestamp": np.sort(random.integers(0, 86_400_000_000, n_rows)),
                "arrival": (number << 40) + np.arange(1, n_rows + 1),
                "event_type": random.choice(
                    list(EVENT_SHARES), n_rows, p=list(EVENT_SHARES.values())
                ),
            }
        ).with_columns(
            pl.format("user-{}", "user_id").alias("user_id"),
            pl.format("item-{}", "item_id").alias("item_id"),
            timestamp=_midnight(day) + pl.duration(microseconds="timestamp"),
            weight=pl.lit(1.0),
            source=pl.lit(_source(day)),
            date=pl.lit(day),
        )
        events.select(
            pl.col(column.name).cast(column.dtype) for column in INTERACTIONS.columns
        ).write_delta(str(folder / INTERACTIONS.name), mode="append")


def measure(workspace: Path, n_rows: int) -> dict[str, Any]:
    """Run the stage on the newest date."""
    from tasks.engine.stage import StageRun
    from tasks.stages.validate import ValidationConfig, validate

    out = workspace / "validate"
    out.mkdir(parents=True, exist_ok=True)
    run_date = DAYS[-1] + timedelta(days=1)
    ingested = Artifact("ingest", "key", out)
    _ingest_result(workspace, n_rows, run_date).save(out)
    run = StageRun.bare(workspace, out, scratch=out)
    before = peak_bytes() / 1e9
    began, began_cpu = time.monotonic(), time.process_time()
    summary = validate.body(run, config=ValidationConfig(), ingested=ingested)
    return {
        "gx_seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - began_cpu,
        "peak_memory_gb": peak_bytes() / 1e9,
        "memory_before_gb": before,
        **summary,
    }


def _ingest_result(workspace: Path, n_rows: int, run_date: date) -> IngestResult:
    """What ingest says of the newest date."""
    day = DAYS[-1]
    lake = Lake(workspace / "lake")
    file = FileResult(
        source=_source(day),
        fingerprint="benchmark",
        new=True,
        rows_in=n_rows,
        rows_kept=n_rows,
        rows_quarantined=0,
        rows_duplicate=0,
        reasons={},
    )
    return IngestResult(
        versions={INTERACTIONS.name: lake.version(INTERACTIONS.name)},
        files=(file,),
        reasons={},
        new_rows=n_rows,
        new_dates=(day,),
        n_items=N_ITEMS,
        item_index_sha256="benchmark",
        timestamp_kind="time",
        run_date=run_date,
        available_until=_midnight(run_date).isoformat(),
        max_quarantined_share=0.05,
    )


def _source(day: date) -> str:
    return f"{INTERACTIONS.name}/{day}.parquet"


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


if __name__ == "__main__":
    main()
