"""The report's table of a night's students."""

from typing import Any

from recsys_core.artifacts import Artifact, read_json
from recsys_core.evaluation.results import EvaluationMetrics, Figures, other_student
from recsys_core.units import format_bytes
from tasks.contracts.family import Family
from tasks.contracts.network import network_in_words


def family_rows(
    compressed: Artifact, metrics: EvaluationMetrics, figures: Figures
) -> list[dict[str, Any]]:
    """One row per student, the main one first; none if there is only one.

    Args:
        compressed: `family.json`, and the `config.json` of each student.
        metrics: The evaluation's metrics.
        figures: Sizes and latencies of the evaluated models.
    """
    family = Family.load(compressed)
    if not family.others:
        return []
    rows: list[dict[str, Any]] = []
    for member in family.members:
        ships = member.name == family.shipped
        model = "compressed" if ships else other_student(member.name)
        served = read_json(family.served_folder(compressed.folder, member.name) / "config.json")
        rows.append(
            {
                **member.model_dump(),
                "ships": ships,
                "network": network_in_words(served["metadata"]["network"]),
                "size": format_bytes(member.size_bytes),
                "evaluated": metrics.models[model].slices["all"].ndcg_at_10,
                "latency_ms": figures[model]["latency_ms_p50"],
            }
        )
    return rows
