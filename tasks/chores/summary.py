"""Summary of a night: the models' metrics, the verdict of the gate, the path of the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from recsys_core.artifacts import Artifact, read_json, write_json
from tasks.engine.night import Night, NightManifest
from tasks.engine.stage import Decision

SUMMARY = "summary.json"
MODELS = ("teacher", "student", "control", "compressed", "champion", "item_knn", "popularity")


@task(name="summarise", cache_policy=NO_CACHE, persist_result=False)
def summarise_night(
    night: Night,
    decisions: Sequence[Decision],
    *,
    evaluated: Artifact,
    registered: Artifact,
    verdict: Artifact,
    report: Artifact,
) -> Path:
    """Write `summary.json` beside the night manifest, and a table for the Prefect UI.

    Args:
        night: The facts of the night.
        decisions: Which stages ran and which were finished before.
        evaluated: `metrics.json`, `latency.json`.
        registered: `registered.json`.
        verdict: `verdict.json`.
        report: `report.html`.

    Returns:
        Path of `summary.json`.
    """
    rows = table_rows(evaluated)
    create_table_artifact(
        table=rows, key="night", description=f"Night of {night.run_date}, {night.name}"
    )
    decided = read_json(verdict.file("verdict.json"))
    path = NightManifest.of(night.workspace, night.run_date, night.config).path.with_name(SUMMARY)
    write_json(
        path,
        {
            "run_date": night.run_date.isoformat(),
            "models": rows,
            "split": evaluated.summary["split"],
            "n_cases": evaluated.summary["n_cases"],
            "passed": decided["passed"],
            "verdict": decided["sentence"],
            "registered": read_json(registered.file("registered.json")),
            "report": str(report.file("report.html").resolve()),
            "ran": [decision.stage for decision in decisions if decision.runs],
            "skipped": [decision.stage for decision in decisions if not decision.runs],
        },
    )
    return path


def table_rows(evaluated: Artifact) -> list[dict[str, Any]]:
    """A row a model: NDCG@10 and Recall@10 over all cases, bytes on disk, median latency."""
    models = read_json(evaluated.file("metrics.json"))["models"]
    latency = read_json(evaluated.file("latency.json"))
    return [
        {
            "model": name,
            "ndcg_at_10": models[name]["slices"]["all"]["ndcg_at_10"]["mean"],
            "recall_at_10": models[name]["slices"]["all"]["recall_at_10"]["mean"],
            "size_bytes": models[name]["size_bytes"],
            "latency_ms_p50": latency[name]["latency_ms_p50"],
        }
        for name in MODELS
        if name in models
    ]
