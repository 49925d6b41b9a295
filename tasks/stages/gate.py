"""Gate: may the compressed student replace the champion?"""

import polars as pl

from recsys_core.artifacts import Artifact
from recsys_core.evaluation.gate import evaluate_rules
from recsys_core.evaluation.gate_config import GateConfig
from recsys_core.evaluation.results import EvaluationMetrics
from tasks.contracts.evaluation import Latencies, artefact_figures
from tasks.engine.stage import StageRun, Summary, stage


@stage(output="verdict", version=2, libraries=("numpy", "polars"))
def gate(
    run: StageRun, config: GateConfig, *, champion: int | None, evaluated: Artifact
) -> Summary:
    """Check the evaluated models against the rules and write `verdict.json`.

    A refusal is a verdict, not an error.

    Args:
        run: The output's folder.
        config: The rules.
        evaluated: `metrics.json`, `ranks.parquet`, `latency.json`.
        champion: Version of the champion when the night began. Rules relative to it are skipped
            only if there is none.
    """
    metrics = EvaluationMetrics.load(evaluated)
    verdict = evaluate_rules(
        config,
        metrics,
        pl.read_parquet(evaluated.file("ranks.parquet")),
        artefact_figures(metrics, Latencies.load(evaluated)),
        champion_exists=champion is not None,
    )
    verdict.save(run.out)
    outcomes = {result.rule: result.outcome for result in verdict.rules}
    return {"passed": verdict.passed, "sentence": verdict.sentence, "rules": outcomes}
