"""The validation stage: what it lets through, what it stops, and what it says."""

import json
import logging
from datetime import date
from inspect import unwrap
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.artifacts import Artifact, sha256_file
from recsys_core.data.files import source_fingerprint
from recsys_core.data.ingestion import read_records
from recsys_core.data.lake import Lake
from recsys_core.data.sources import SourceConfig
from recsys_core.settings import silent
from tasks.ingest import ingest
from tasks.night import Night
from tasks.stage import StageRun
from tasks.validate import ValidationConfig, ValidationFailed, validate

RUN_DATE = date(2026, 1, 10)
HEADER = "user_id,item_id,timestamp,event_type,weight\n"


def _run(workspace: Path, stage: str) -> StageRun:
    out = workspace / stage
    out.mkdir(parents=True, exist_ok=True)
    night = Night(workspace, "test", RUN_DATE, {}, None, {})
    return StageRun(night, "key", out, workspace / "scratch", silent, logging.getLogger("test"))


def _ingest(workspace: Path, text: str, **settings: object) -> Artifact:
    path = workspace / "in" / "a.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + text)
    config = SourceConfig.model_validate(
        {"interactions": path, "timestamp_unit": "iso", **settings}
    )
    run, hashes = _run(workspace, "ingest"), source_fingerprint(config)
    unwrap(ingest)(run, config=config, run_date=RUN_DATE.isoformat(), sources=hashes)
    return Artifact("ingest", "key", run.out)


def _validate(workspace: Path, ingested: Artifact, **settings: Any) -> dict[str, Any]:
    config = ValidationConfig.model_validate(settings)
    return unwrap(validate)(_run(workspace, "validate"), config=config, ingested=ingested)


def _report(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / "validate" / "validation.json").read_text())


GOOD = "u,i,2026-01-01,view,1\nv,i,2026-01-02,buy,2\n"


def test_good_rows_pass_and_are_no_longer_new(tmp_path: Path) -> None:
    ingested = _ingest(tmp_path, GOOD)
    assert _validate(tmp_path, ingested)["n_rows"] == 2
    assert _report(tmp_path)["success"] is True
    first = sha256_file(tmp_path / "validate" / "validation.json")
    _validate(tmp_path, ingested)
    assert sha256_file(tmp_path / "validate" / "validation.json") == first
    _ingest(tmp_path, GOOD)
    assert _validate(tmp_path, ingested) == {"n_rows": 0, "n_expectations": 0, "n_failed": 0}
    assert "Nothing is new" in (tmp_path / "validate" / "validation.md").read_text()


def test_what_failed_stays_new_until_it_is_corrected(tmp_path: Path) -> None:
    for _ in range(2):
        ingested = _ingest(tmp_path, GOOD)
        with pytest.raises(ValidationFailed):
            _validate(tmp_path, ingested, event_types=["view"])
    (record,) = read_records(Lake(tmp_path / "lake")).values()
    assert not record.validated
    ingested = _ingest(tmp_path, GOOD.replace("buy", "view"))
    assert _validate(tmp_path, ingested, event_types=["view"])["n_failed"] == 0


def test_the_failure_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    ingested = _ingest(tmp_path, GOOD + "w,i,2026-01-02,bye,1\n")
    with pytest.raises(ValidationFailed) as caught:
        _validate(tmp_path, ingested, event_types=["view"])
    assert (
        "- **event_type** is one of view; 2 are not, for example buy (interactions/a.csv row "
        "2), bye (interactions/a.csv row 3). Correct the file, or add the kind to "
        "validation.event_types." in str(caught.value)
    )
    assert (tmp_path / "validate" / "validation.md").read_text() == str(caught.value)
    failed = [one for one in _report(tmp_path)["expectations"] if not one["success"]]
    assert [(one["column"], one["unexpected"], one["sample"]) for one in failed] == [
        ("event_type", 2, ["buy", "bye"])
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_rows": 3}, "**rows** are at least 3; found: 2"),
        ({"min_rows": 0, "max_rows": 1}, "**rows** are at least 0 and at most 1"),
    ],
)
def test_too_few_or_too_many_rows_fail(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValidationFailed) as caught:
        _validate(tmp_path, _ingest(tmp_path, GOOD), **settings)
    assert message in str(caught.value)


def test_too_many_quarantined_rows_fail(tmp_path: Path) -> None:
    text = GOOD + ",i,2026-01-02,view,1\n"
    with pytest.raises(ValidationFailed, match=r"quarantined share\*\* is at most 0\.05.*0\.333"):
        _validate(tmp_path, _ingest(tmp_path, text))
    assert _validate(tmp_path, _ingest(tmp_path, text, max_quarantined_share=0.34))["n_rows"] == 2


def test_early_rows_are_neither_good_nor_bad(tmp_path: Path) -> None:
    ingested = _ingest(tmp_path, GOOD + "w,i,2026-01-10,view,1\n" * 5)
    assert _validate(tmp_path, ingested)["n_rows"] == 2


def _tamper(workspace: Path, change: list[pl.Expr] | str) -> Artifact:
    """Rows that went around the ingest."""
    ingested = _ingest(workspace, GOOD)
    rows = Lake(workspace / "lake").scan("interactions").collect()
    rows = rows.drop(change) if isinstance(change, str) else rows.with_columns(change)
    place = str(workspace / "lake" / "interactions")
    rows.write_delta(place, mode="overwrite", delta_write_options={"schema_mode": "overwrite"})
    path = ingested.folder / "ingest.json"
    facts = json.loads(path.read_text())
    facts["versions"]["interactions"] = Lake(workspace / "lake").version("interactions")
    path.write_text(json.dumps(facts))
    return ingested


@pytest.mark.parametrize(
    ("change", "column", "expectation"),
    [
        ([pl.lit(None, pl.String).alias("user_id")], "user_id", "has no missing values"),
        ([pl.lit(float("inf"), pl.Float32).alias("weight")], "weight", "is finite"),
        ([pl.col("timestamp").dt.offset_by("1y")], "timestamp", "is before 2026-01-10 00:00:00"),
        ([pl.col("timestamp").dt.offset_by("-50y")], "timestamp", "is at least 1990-01-01"),
        ([pl.col("weight").cast(pl.Float64)], "weight", "is of type Float32"),
        ("event_type", "event_type", "exists"),
    ],
)
def test_rows_that_went_around_the_ingest_are_found(
    tmp_path: Path, change: list[pl.Expr] | str, column: str, expectation: str
) -> None:
    with pytest.raises(ValidationFailed):
        _validate(tmp_path, _tamper(tmp_path, change))
    failed = [one for one in _report(tmp_path)["expectations"] if not one["success"]]
    assert failed[0]["column"] == column
    assert failed[0]["expectation"].startswith(expectation)
    assert failed[0]["remedy"]


def test_repeated_rows_are_found(tmp_path: Path) -> None:
    same = [
        pl.lit("u").alias("user_id"),
        pl.col("timestamp").min(),
        pl.lit("x").alias("event_type"),
    ]
    ingested = _tamper(tmp_path, same)
    with pytest.raises(ValidationFailed, match=r"repeated rows\*\* are none; found: 1\b"):
        _validate(tmp_path, ingested)
