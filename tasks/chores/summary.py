"""The end of a night in a few lines: what each model reached, what ships, where things are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from recsys_core.artifacts import Artifact, read_json, write_json
from tasks.engine.night import Night, NightManifest

SUMMARY = "summary.json"
MODELS = ("teacher", "student", "control", "compressed", "champion", "item_knn", "popularity")


@task(name="summarise", cache_policy=NO_CACHE, persist_result=False)
def summarise_night(night: Night, made: Mapping[str, Artifact]) -> Path:
    """Write `summary.json` beside the night manifest, and a table for the Prefect UI.

    Returns:
        Path of `summary.json`.
    """
    rows = table_rows(made["evaluated"])
    create_table_artifact(
        table=rows, key="night", description=f"Night of {night.run_date}, {night.name}"
    )
    verdict = read_json(made["gated"].file("verdict.json"))
    ran = [plan.stage for plan in night.plans if plan.runs]
    path = NightManifest.of(night.workspace, night.run_date, night.config).path.with_name(SUMMARY)
    write_json(
        path,
        {
            "run_date": night.run_date.isoformat(),
            "models": rows,
            "split": made["evaluated"].summary["split"],
            "n_cases": made["evaluated"].summary["n_cases"],
            "passed": verdict["passed"],
            "verdict": verdict["sentence"],
            "registered": read_json(made["registered"].file("registered.json")),
            "report": str(made["report"].file("report.html").resolve()),
            "ran": ran,
            "skipped": [plan.stage for plan in night.plans if not plan.runs],
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
