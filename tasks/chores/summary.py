"""Summary of a night: the models' metrics, the verdict of the gate, the path of the report."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from recsys_core.artifacts import Artifact
from recsys_core.evaluation.results import MODELS, EvaluationMetrics, Verdict
from tasks.contracts.evaluation import Latencies
from tasks.contracts.night import ModelRow, NightSummary
from tasks.contracts.registry import Registered
from tasks.engine.night import Night, NightManifest
from tasks.engine.stage import Decision


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
        decisions: Which stages ran and which had finished before.
        evaluated: `metrics.json`, `latency.json`.
        registered: `registered.json`.
        verdict: `verdict.json`.
        report: `report.html`.

    Returns:
        Path of `summary.json`.
    """
    rows = table_rows(evaluated)
    create_table_artifact(
        table=[row.model_dump() for row in rows],
        key="night",
        description=f"Night of {night.run_date}, {night.name}",
    )
    decided = Verdict.load(verdict)
    summary = NightSummary(
        run_date=night.run_date,
        models=rows,
        split=evaluated.summary["split"],
        n_cases=evaluated.summary["n_cases"],
        passed=decided.passed,
        verdict=decided.sentence,
        registered=Registered.load(registered),
        report=str(report.file("report.html").resolve()),
        ran=[decision.stage for decision in decisions if decision.runs],
        skipped=[decision.stage for decision in decisions if not decision.runs],
    )
    folder = NightManifest.folder(night.workspace, night.run_date, night.config)
    summary.save(folder)
    return folder / NightSummary.file_name


def table_rows(evaluated: Artifact) -> list[ModelRow]:
    """One row per model: NDCG@10 and Recall@10 over all cases, bytes on disk, median latency."""
    metrics, latencies = EvaluationMetrics.load(evaluated), Latencies.load(evaluated)
    rows: list[ModelRow] = []
    for name in (name for name in MODELS if name in metrics.models):
        overall = metrics.models[name].slices["all"]
        ndcg, recall = overall.ndcg_at_10.mean, overall.recall_at_10.mean
        assert ndcg is not None, "the evaluation fails if there are no cases"
        assert recall is not None, "the evaluation fails if there are no cases"
        rows.append(
            ModelRow(
                model=name,
                ndcg_at_10=ndcg,
                recall_at_10=recall,
                size_bytes=metrics.models[name].size_bytes,
                latency_ms_p50=latencies.models[name].latency_ms_p50,
            )
        )
    return rows
