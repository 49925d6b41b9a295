"""The summary of a night, which `recdistill report` shows."""

from datetime import date

from pydantic import BaseModel, ConfigDict

from recsys_core.json_file import JsonFile
from tasks.contracts.registry import Registered


class ModelRow(BaseModel):
    """A model's row in the table of a night.

    Attributes:
        model: Its name.
        ndcg_at_10: Over all cases.
        recall_at_10: Over all cases.
        size_bytes: Bytes on disk; None for baselines.
        latency_ms_p50: Median milliseconds of one request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    ndcg_at_10: float
    recall_at_10: float
    size_bytes: int | None
    latency_ms_p50: float


class NightSummary(JsonFile):
    """The results of a night and where they are.

    Attributes:
        run_date: The night's date.
        models: One row per model.
        split: The evaluated window.
        n_cases: Number of ranked events.
        passed: Whether the gate passed the compressed student.
        verdict: The gate's sentence.
        registered: The night's version.
        report: Absolute path of `report.html`.
        ran: Names of the stages that ran.
        skipped: Names of the stages that had finished before.
    """

    file_name = "summary.json"

    run_date: date
    models: list[ModelRow]
    split: str
    n_cases: int
    passed: bool
    verdict: str
    registered: Registered
    report: str
    ran: list[str]
    skipped: list[str]
