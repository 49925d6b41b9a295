"""The settings of the gate: its rules, and the confidence with which they are decided."""

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys_core.evaluation.metrics import METRICS
from recsys_core.evaluation.results import NightModel, RankingMetric, Reference
from recsys_core.evaluation.statistics import CONFIDENCE, N_RESAMPLES
from recsys_core.settings import Settings

MetricName = Literal[RankingMetric, "size_bytes", "latency_ms_p50"]


class GateRule(Settings):
    """One bound on one figure of one model.

    Either absolute (`at_least` or `at_most`), or relative to another model: not worse than
    `relative_to` by more than `margin`, by the lower confidence bound of the paired difference.
    """

    name: str = Field(min_length=1, description="Name under which the outcome is reported.")
    model: NightModel = Field(default="compressed", description="Model that the rule is about.")
    metric: MetricName = Field(
        default="ndcg_at_10",
        description="Figure that the rule bounds: a metric (0 to 1), bytes or milliseconds.",
    )
    slice: str = Field(
        default="all",
        pattern="^[a-z][a-z0-9_]*$",
        description="Slice of the cases: all, cold_users, new_users, cold_items, head, mid, tail.",
    )
    at_least: float | None = Field(default=None, description="Smallest value that passes.")
    at_most: float | None = Field(default=None, description="Largest value that passes.")
    relative_to: Reference | None = Field(
        default=None,
        description="Model to compare with. The control stands in for an external teacher, with a "
        "margin of at most 0.",
    )
    margin: float = Field(
        default=0.0,
        gt=-10.0,
        lt=1.0,
        description="Loss allowed against relative_to, as a share of its mean: 0.05 allows 5 %; "
        "0 requires the model to be better, a negative margin to be better by that much.",
    )
    min_users: int = Field(
        default=50, ge=1, description="With fewer users in the slice the rule decides nothing."
    )

    @model_validator(mode="after")
    def _one_bound_that_fits(self) -> Self:
        bounds = (self.at_least, self.at_most, self.relative_to)
        if sum(bound is not None for bound in bounds) != 1:
            msg = f"Rule {self.name!r} needs exactly one of at_least, at_most and relative_to."
            raise ValueError(msg)
        if self.relative_to is None and self.margin != 0:
            msg = f"Rule {self.name!r} has a margin but no relative_to that it could refer to."
            raise ValueError(msg)
        if self.relative_to == self.model:
            msg = f"Rule {self.name!r} compares {self.model} with itself."
            raise ValueError(msg)
        if self.metric not in METRICS and (self.relative_to is not None or self.slice != "all"):
            msg = (
                f"Rule {self.name!r}: {self.metric} has neither users nor slices to compare; "
                "bound it by at_least or at_most."
            )
            raise ValueError(msg)
        return self


class GateConfig(Settings):
    """The rules that a model must meet to become champion; all decided rules must hold."""

    rules: tuple[GateRule, ...] = Field(
        default=(
            GateRule(name="better than popularity", relative_to="popularity"),
            GateRule(name="not worse than the champion", relative_to="champion", margin=0.02),
            GateRule(name="close to the teacher", relative_to="teacher", margin=0.15),
        ),
        min_length=1,
        description="The rules; their names are unique.",
    )
    confidence: float = Field(
        default=CONFIDENCE,
        ge=0.5,
        lt=1.0,
        description="One-sided confidence of relative rules, 0.5 to 1.",
    )
    n_resamples: int = Field(
        default=N_RESAMPLES, ge=100, le=100_000, description="Bootstrap samples of the users."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the bootstrap.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"Rules must have different names, but these occur twice: {', '.join(twice)}."
            raise ValueError(msg)
        return self
