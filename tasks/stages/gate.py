"""Gate: may the compressed student replace the champion?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.evaluation.gate import Figures, evaluate_rules
from recsys_core.evaluation.gate_config import GateConfig
from tasks.engine.stage import StageRun, Summary, stage


@stage(output="verdict", version=1, libraries=("numpy", "polars"))
def gate(
    run: StageRun, config: GateConfig, *, champion: int | None, evaluated: Artifact
) -> Summary:
    """Judge the evaluated models and write `verdict.json`; refusing is no error.

    Args:
        run: Where and how.
        config: The rules.
        evaluated: `metrics.json`, `ranks.parquet`, `latency.json`.
        champion: Version of the champion when the night began. Rules relative to it are skipped
            only where there is none.
    """
    metrics = read_json(evaluated.file("metrics.json"))
    verdict = evaluate_rules(
        config,
        metrics,
        pl.read_parquet(evaluated.file("ranks.parquet")),
        artefact_figures(metrics, evaluated),
        champion_exists=champion is not None,
    )
    write_json(run.out / "verdict.json", verdict.as_json())
    outcomes = {outcome.rule: outcome.outcome for outcome in verdict.rules}
    return {"passed": verdict.passed, "sentence": verdict.sentence, "rules": outcomes}


def artefact_figures(metrics: Mapping[str, Any], evaluated: Artifact) -> Figures:
    """Sizes (of the compressed student: all that serving needs) and latencies of the models."""
    latencies: dict[str, dict[str, float]] = read_json(evaluated.file("latency.json"))
    return {
        model: {"size_bytes": facts["size_bytes"], **latencies.get(model, {})}
        for model, facts in metrics["models"].items()
    }
