"""The compared models, their measured quality, and the gate's verdict: what is stored as JSON."""

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from recsys_core.json_file import JsonFile

_Trained = Literal["teacher", "student", "control"]
_Other = Literal["champion", "item_knn", "popularity"]

NightModel = Literal[_Trained, "compressed"]
"""A model that the night makes."""
Reference = Literal[_Trained, _Other]
"""A model that another one is compared with."""
MODELS: tuple[str, ...] = get_args(Literal[NightModel, _Other])
"""All evaluated models, in the order in which tables and plots show them."""


def other_student(name: str) -> str:
    """What a compressed student that doesn't ship is called among the evaluated models."""
    return f"size_{name}"


RankingMetric = Literal["ndcg_at_10", "recall_at_10", "mrr"]
RuleOutcome = Literal["pass", "fail", "insufficient_n", "skipped"]

Figures = Mapping[str, Mapping[str, float | None]]
"""Figures of the artefacts: model → "size_bytes", "latency_ms_p50" → value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UserMean(_Part):
    """A mean over users with its confidence bounds; all None if there are no users."""

    mean: float | None
    low: float | None
    high: float | None


class SliceResult(_Part):
    """A model's metrics on one slice of the cases."""

    n_users: int
    ndcg_at_10: UserMean
    recall_at_10: UserMean
    mrr: UserMean

    def metrics(self) -> dict[str, UserMean]:
        """The metrics by name."""
        return {
            "ndcg_at_10": self.ndcg_at_10,
            "recall_at_10": self.recall_at_10,
            "mrr": self.mrr,
        }


class ModelResult(_Part):
    """What was measured of one model.

    Attributes:
        size_bytes: Bytes on disk; None for baselines, which have no files.
        slices: Metrics by slice; "all" has every case.
    """

    size_bytes: int | None
    slices: dict[str, SliceResult]


class ChampionNote(_Part):
    """The champion's version (None: there is none) and, if it was not compared, the reason."""

    version: int | None
    not_compared_because: str | None


class EvaluationMetrics(JsonFile):
    """Metrics of all models of a night over the same cases.

    Attributes:
        split: The evaluated window.
        n_cases: Number of ranked events.
        n_users: Number of their users.
        dropped: Number of events that were not ranked, by reason.
        champion: The champion, or the reason why it is not among the models.
        teacher_is_external: Whether the teacher was made elsewhere: it is not among the models.
        models: Results by model; of students that don't ship, under their `other_student`.
    """

    file_name = "metrics.json"

    split: Literal["validation", "test"]
    n_cases: int
    n_users: int
    dropped: dict[str, int]
    champion: ChampionNote
    teacher_is_external: bool = False
    models: dict[str, ModelResult]


class RuleResult(_Part):
    """How a rule was decided.

    Attributes:
        rule: Its name.
        outcome: Only "pass" and "fail" decide.
        sentence: The reason, with the figures.
        value: The figure of the rule's model.
        reference: The same figure of the model that it is compared with.
        bound: Lower confidence bound of value - reference; for absolute rules, the value.
        required: The limit that the bound is compared with.
        n_users: Users in the slice.
    """

    rule: str
    outcome: RuleOutcome
    sentence: str
    value: float | None = None
    reference: float | None = None
    bound: float | None = None
    required: float | None = None
    n_users: int | None = None


class Verdict(JsonFile):
    """Whether the model may be promoted, the reason, and the result of each rule."""

    file_name = "verdict.json"

    passed: bool
    sentence: str
    rules: tuple[RuleResult, ...]
