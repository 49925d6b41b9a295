"""The model card that is stored beside a registered model."""

from collections.abc import Mapping
from typing import Any

from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.evaluation.recency_prior import RecencyPrior
from recsys_core.evaluation.results import MODELS, EvaluationMetrics
from recsys_core.evaluation.statistics import CONFIDENCE
from tasks.contracts.network import network_in_words


def model_card(
    name: str,
    served: Mapping[str, Any],
    metrics: EvaluationMetrics,
    lineage: Mapping[str, str],
    labels: LabelOrigin | None = None,
) -> str:
    """Markdown: what the model is, its measured quality, its lineage.

    Args:
        name: The registered model's name.
        served: Content of the served model's `config.json`.
        metrics: The evaluation's metrics.
        lineage: Keys of the stage outputs that the model comes from.
        labels: Where its soft labels come from; None: from the night's own teacher.
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
        f"distilled from {_teacher(labels)}, with its weights stored in {weights}.",
        "",
        f"- Student: `{served['metadata']['size']}`, "
        f"{network_in_words(served['metadata']['network'])}",
        f"- {_prior(served['metadata']['recency_prior'])}",
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
        *_labels_section(labels),
        "## Made of",
        "",
        *(f"- {stage}: `{key}`" for stage, key in sorted(lineage.items())),
    ]
    return "\n".join(lines) + "\n"


def _prior(prior: Mapping[str, Any] | None) -> str:
    if prior is None:
        return "No recent popularity is added to scores"
    return str(RecencyPrior.model_validate(prior)).rstrip(".")


def _teacher(labels: LabelOrigin | None) -> str:
    return "a large one" if labels is None else f"soft labels of `{labels.teacher}`"


def _labels_section(labels: LabelOrigin | None) -> list[str]:
    if labels is None:
        return []
    return [
        "## Soft labels made elsewhere",
        "",
        f"- Teacher: `{labels.teacher}`, trained through {labels.trained_through or 'unknown'}",
        f"- Store: SHA-256 of its `soft_labels.json` is `{labels.store_sha256}`",
        f"- Labels: {labels.labels:,} used, {labels.stale:,} left out, because their events are "
        "others now",
        f"- Coverage: {labels.positions:,} of {labels.n_positions:,} training positions, "
        f"{labels.users:,} of {labels.n_users:,} users",
        "",
    ]


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
