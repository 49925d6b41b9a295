"""Latencies of the evaluated models, and the figures of the artefacts that the gate bounds."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from recsys_core.evaluation.results import EvaluationMetrics, Figures
from recsys_core.json_file import JsonFile


class Latency(BaseModel):
    """Milliseconds that one request takes, the median."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms_p50: float


class Latencies(JsonFile):
    """Latencies by model; the file holds the mapping."""

    file_name = "latency.json"

    models: dict[str, Latency]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, content: Any) -> Any:
        return content if isinstance(content, dict) and "models" in content else {"models": content}

    @model_serializer
    def _to_mapping(self) -> dict[str, Latency]:
        return self.models

    def median_of(self, model: str) -> float | None:
        """A model's median latency; None if it was not measured."""
        latency = self.models.get(model)
        return None if latency is None else latency.latency_ms_p50


def artefact_figures(metrics: EvaluationMetrics, latencies: Latencies) -> Figures:
    """Sizes (of the compressed student: all that serving needs) and latencies of the models."""
    return {
        model: {"size_bytes": result.size_bytes, "latency_ms_p50": latencies.median_of(model)}
        for model, result in metrics.models.items()
    }
