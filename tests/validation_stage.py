"""The stages ingest and validate, one after the other, on a small file."""

import json
from datetime import date
from pathlib import Path
from typing import Any

from recsys_core.artifacts import Artifact
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest
from tasks.stages.validate import ValidationConfig, validate

RUN_DATE = date(2026, 1, 10)
HEADER = "user_id,item_id,timestamp,event_type,weight\n"


def stage_run(workspace: Path, stage: str) -> StageRun:
    """Surroundings of a stage's body in a workspace."""
    out = workspace / stage
    out.mkdir(parents=True, exist_ok=True)
    return StageRun.bare(workspace, out)


def ingest_text(workspace: Path, text: str, **settings: object) -> Artifact:
    """The ingest stage on one CSV file of these lines."""
    path = workspace / "in" / "a.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + text)
    config = SourceConfig.model_validate(
        {"interactions": path, "timestamp_unit": "iso", **settings}
    )
    run, hashes = stage_run(workspace, "ingest"), source_fingerprint(config)
    ingest.body(run, config=config, run_date=RUN_DATE, sources=hashes)
    return Artifact("ingest", "key", run.out)


def run_validate(workspace: Path, ingested: Artifact, **settings: Any) -> dict[str, Any]:
    """The summary of the validate stage with these settings."""
    config = ValidationConfig.model_validate(settings)
    return validate.body(stage_run(workspace, "validate"), config=config, ingested=ingested)


def written_report(workspace: Path) -> dict[str, Any]:
    """What the validate stage wrote to validation.json."""
    return json.loads((workspace / "validate" / "validation.json").read_text())
