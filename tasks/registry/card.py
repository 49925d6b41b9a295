"""The model card that is stored beside a registered model."""

from collections.abc import Mapping
from typing import Any

from recsys_core.evaluation.results import MODELS, EvaluationMetrics
from recsys_core.evaluation.statistics import CONFIDENCE


def model_card(
    name: str, served: Mapping[str, Any], metrics: EvaluationMetrics, lineage: Mapping[str, str]
) -> str:
    """Markdown: what the model is, its measured quality, its lineage.

    Args:
        name: The registered model's name.
        served: Content of the served model's `config.json`.
        metrics: The evaluation's metrics.
        lineage: Keys of the stage outputs that the model comes from.
    """
    trained = served["trained_through"] or "an order of events without times"
    seen = (
        "never recommended, and their scores mean nothing"
        if served["exclude_seen"]
        else "recommended too, unless `exclude_seen` is asked for"
    )
    is_int8 = served["metadata"]["precision"] == "int8"
    weights = "8 bits" if is_int8 else "fp32, because rounding to 8 bits cost too much"
    lines = [
        f"# {name}",
        "",
        "Recommends the next item after a history of item ids: a small sequential network, "
        f"distilled from a large one, with its weights stored in {weights}.",
        "",
        f"- Items: {served['n_items']:,}, the active catalogue",
        f"- History: the newest {served['max_length']} known items, oldest first",
        f"- Trained through: {trained}",
        f"- Items of the history are {seen}",
        "- A history without a known item gets recent popularity",
        "",
        f"## Quality: {metrics.n_cases:,} events of {metrics.n_users:,} users "
        f"({metrics.split}), ranked among the full catalogue",
        "",
        f"| model | NDCG@10 | {CONFIDENCE:.0%} interval | Recall@10 |",
        "|---|---|---|---|",
        *_quality_rows(metrics),
        "",
        "The registered model is `compressed`. `metrics.json` beside this card has all slices.",
        "",
        "## Made of",
        "",
        *(f"- {stage}: `{key}`" for stage, key in sorted(lineage.items())),
    ]
    return "\n".join(lines) + "\n"


def _quality_rows(metrics: EvaluationMetrics) -> list[str]:
    rows: list[str] = []
    for model in (name for name in MODELS if name in metrics.models):
        overall = metrics.models[model].slices["all"]
        ndcg, recall = overall.ndcg_at_10, overall.recall_at_10
        interval = f"{_figure(ndcg.low)} to {_figure(ndcg.high)}"
        rows.append(f"| {model} | {_figure(ndcg.mean)} | {interval} | {_figure(recall.mean)} |")
    return rows


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
