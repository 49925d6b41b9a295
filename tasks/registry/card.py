"""The model card that lies beside a registered model."""

from collections.abc import Mapping
from typing import Any

from recsys_core.evaluation.statistics import CONFIDENCE

_MODELS = ("teacher", "student", "control", "compressed", "champion", "item_knn", "popularity")


def model_card(
    name: str, served: Mapping[str, Any], metrics: Mapping[str, Any], lineage: Mapping[str, str]
) -> str:
    """Markdown: what the model is, how good it was found to be, what it was made of.

    Args:
        name: The registered model's name.
        served: Content of the served model's `config.json`.
        metrics: Content of the evaluation's `metrics.json`.
        lineage: Keys of the stage outputs that it was made of.
    """
    trained = served["trained_through"] or "an order of events without times"
    seen = "left out" if served["exclude_seen"] else "kept"
    lines = [
        f"# {name}",
        "",
        "Recommends the next item after a history of item ids: a small sequential network, "
        "distilled from a large one, with its weights stored in 8 bits.",
        "",
        f"- Items: {served['n_items']:,}, the active catalogue",
        f"- History: the newest {served['max_length']} known items, oldest first",
        f"- Trained through: {trained}",
        f"- Items of the history are {seen} unless `exclude_seen` says otherwise",
        "- A history without a known item gets recent popularity",
        "",
        f"## Quality: {metrics['n_cases']:,} events of {metrics['n_users']:,} users "
        f"({metrics['split']}), ranked among the full catalogue",
        "",
        f"| model | NDCG@10 | {CONFIDENCE:.0%} interval | Recall@10 |",
        "|---|---|---|---|",
        *_quality_rows(metrics["models"]),
        "",
        "The registered model is `compressed`. `metrics.json` beside this card has all slices.",
        "",
        "## Made of",
        "",
        *(f"- {stage}: `{key}`" for stage, key in sorted(lineage.items())),
    ]
    return "\n".join(lines) + "\n"


def _quality_rows(models: Mapping[str, Any]) -> list[str]:
    rows: list[str] = []
    for model in [name for name in _MODELS if name in models]:
        ndcg, recall = (models[model]["slices"]["all"][m] for m in ("ndcg_at_10", "recall_at_10"))
        interval = f"{_figure(ndcg['low'])} to {_figure(ndcg['high'])}"
        rows.append(
            f"| {model} | {_figure(ndcg['mean'])} | {interval} | {_figure(recall['mean'])} |"
        )
    return rows


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
