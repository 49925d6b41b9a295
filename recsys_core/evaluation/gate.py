"""The gate: rules that a proposed model must meet before it may replace the champion.

The gate refuses in doubt: on a missing figure, a NaN, figures that contradict each other, or when
no rule could be decided.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import polars as pl

from recsys_core.evaluation.gate_config import GateConfig, GateRule
from recsys_core.evaluation.metrics import METRICS, Values, mean_per_user
from recsys_core.evaluation.results import (
    EvaluationMetrics,
    Figures,
    Reference,
    RuleOutcome,
    RuleResult,
    Verdict,
)
from recsys_core.evaluation.statistics import paired_difference

_TOLERANCE = 1e-9
_EXTERNAL = "The teacher is external and ranks nothing."


def evaluate_rules(
    config: GateConfig,
    metrics: EvaluationMetrics,
    ranks: pl.DataFrame,
    figures: Figures,
    *,
    champion_exists: bool,
) -> Verdict:
    """Check the models against all rules.

    Args:
        config: The rules.
        metrics: The reported metrics; where they contradict `ranks`, a rule fails.
        ranks: One row per case: `user_id`, `slice_<name>`, `rank_<model>`.
        figures: Sizes and latencies.
        champion_exists: Rules relative to the champion are skipped only where there is none that
            could be compared at all; where there is one without figures, they fail.

    Returns:
        Passed if every decided rule holds and at least one was decided. An external teacher has no
        ranks: rules relative to it are decided relative to the control, which has had no teacher.
        Their margin allows for a smaller network, and the control has the same size, so a positive
        margin counts as 0.
    """
    evidence = _Evidence(metrics, ranks, figures, champion_exists)
    outcomes = tuple(_evaluate_rule(rule, config, evidence) for rule in config.rules)
    failed = [outcome for outcome in outcomes if outcome.outcome == "fail"]
    decided = [outcome for outcome in outcomes if outcome.outcome in ("pass", "fail")]
    undecided = len(outcomes) - len(decided)
    if failed:
        reasons = " ".join(f"{outcome.rule}: {outcome.sentence}" for outcome in failed)
        sentence = f"{len(failed)} of {len(decided)} decided rules failed. {reasons}"
    elif not decided:
        sentence = f"None of the {len(outcomes)} rules could be decided, so nothing is proven."
    else:
        sentence = f"All {len(decided)} decided rules hold; {undecided} could not be decided."
    return Verdict(passed=bool(decided) and not failed, sentence=sentence, rules=outcomes)


class _MissingFigureError(Exception):
    """A figure that a rule needs is missing or contradicts another one."""


class _TooFewUsersError(Exception):
    """The slice is too small to decide anything."""

    def __init__(self, n_users: int) -> None:
        super().__init__(n_users)
        self.n_users = n_users


@dataclass(frozen=True)
class _Evidence:
    metrics: EvaluationMetrics
    ranks: pl.DataFrame
    figures: Figures
    champion_exists: bool

    def why_no_champion(self) -> str | None:
        """The reason why the evaluation did not compare with the champion, if it gives one."""
        return self.metrics.champion.not_compared_because

    def artefact_figure(self, rule: GateRule) -> float:
        value = self.figures.get(rule.model, {}).get(rule.metric)
        if value is None or not isfinite(value):
            msg = f"There is no {rule.metric} of {rule.model} (found {value})."
            raise _MissingFigureError(msg)
        return float(value)

    def user_values(self, rule: GateRule, *models: str) -> list[Values]:
        """Each model's metric for every user of the slice, in the same order of users."""
        columns = [f"rank_{model}" for model in models]
        marker = [] if rule.slice == "all" else [f"slice_{rule.slice}"]
        if missing := [name for name in columns + marker if name not in self.ranks.columns]:
            reason = self.why_no_champion() if "rank_champion" in missing else None
            msg = f"The evaluation has no {' and no '.join(missing)}. {reason or ''}"
            raise _MissingFigureError(msg.strip())
        if unmarked := sum(self.ranks[name].null_count() for name in marker):
            msg = f"{unmarked} cases are not marked as inside or outside of {rule.slice}."
            raise _MissingFigureError(msg)
        cases = self.ranks.filter(*(pl.col(name) for name in marker))
        n_users = cases["user_id"].n_unique()
        if n_users < rule.min_users:
            raise _TooFewUsersError(n_users)
        users = cases["user_id"].rank("dense").to_numpy()
        return [self._checked(rule, model, cases, users) for model in models]

    def _checked(
        self, rule: GateRule, model: str, cases: pl.DataFrame, users: np.ndarray[Any, Any]
    ) -> Values:
        ranks = cases[f"rank_{model}"]
        if ranks.null_count() or not ranks.dtype.is_integer() or ranks.lt(1).any():
            msg = f"The ranks of {model} on {rule.slice} are not all whole numbers from 1."
            raise _MissingFigureError(msg)
        values = mean_per_user(METRICS[rule.metric](ranks.to_numpy()), users)
        reported = self._reported(rule, model)
        if reported is None or not abs(reported - values.mean()) <= _TOLERANCE:
            msg = (
                f"metrics.json reports {reported} as {rule.metric} of {model} on {rule.slice}, but "
                f"the ranks give {values.mean():.6f}; evaluate again."
            )
            raise _MissingFigureError(msg)
        return values

    def _reported(self, rule: GateRule, model: str) -> float | None:
        result = self.metrics.models.get(model)
        on_slice = result.slices.get(rule.slice) if result else None
        return on_slice.metrics()[rule.metric].mean if on_slice else None


def _evaluate_rule(rule: GateRule, config: GateConfig, evidence: _Evidence) -> RuleResult:
    if rule.relative_to == "champion" and not evidence.champion_exists:
        reason = evidence.why_no_champion() or "There is no champion."
        return RuleResult(rule=rule.name, outcome="skipped", sentence=reason)
    is_external = evidence.metrics.teacher_is_external
    instead_of_teacher = is_external and rule.relative_to == "teacher"
    if is_external and (
        rule.model == "teacher" or (instead_of_teacher and rule.model == "control")
    ):
        return RuleResult(rule=rule.name, outcome="skipped", sentence=_EXTERNAL)
    try:
        if rule.relative_to is None:
            return _evaluate_absolute(rule, evidence)
        if not instead_of_teacher:
            return _evaluate_relative(rule, rule.relative_to, config, evidence)
        stricter = rule.model_copy(update={"margin": min(rule.margin, 0.0)})
        result = _evaluate_relative(stricter, "control", config, evidence)
        sentence = f"{_EXTERNAL} The control stands in: {result.sentence}"
        return result.model_copy(update={"sentence": sentence})
    except _MissingFigureError as missing:
        return RuleResult(rule=rule.name, outcome="fail", sentence=str(missing))
    except _TooFewUsersError as few:
        sentence = f"{few.n_users} users on {rule.slice}, at least {rule.min_users} are needed."
        return RuleResult(
            rule=rule.name, outcome="insufficient_n", sentence=sentence, n_users=few.n_users
        )


def _evaluate_absolute(rule: GateRule, evidence: _Evidence) -> RuleResult:
    n_users = None
    if rule.metric in METRICS:
        (values,) = evidence.user_values(rule, rule.model)
        value, n_users = float(values.mean()), len(values)
    else:
        value = evidence.artefact_figure(rule)
    if rule.at_least is not None:
        required, holds, wanted = rule.at_least, value >= rule.at_least, "at least"
    else:
        assert rule.at_most is not None, "the rule was validated to have one bound"
        required, holds, wanted = rule.at_most, value <= rule.at_most, "at most"
    sentence = (
        f"{rule.metric} of {rule.model} on {rule.slice} is {_short(value)}, "
        f"{wanted} {_short(required)} is required."
    )
    outcome: RuleOutcome = "pass" if holds else "fail"
    return RuleResult(
        rule=rule.name,
        outcome=outcome,
        sentence=sentence,
        value=value,
        bound=value,
        required=required,
        n_users=n_users,
    )


def _evaluate_relative(
    rule: GateRule, relative_to: Reference, config: GateConfig, evidence: _Evidence
) -> RuleResult:
    values, references = evidence.user_values(rule, rule.model, relative_to)
    difference = paired_difference(
        values,
        references,
        confidence=config.confidence,
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
    value, reference = float(values.mean()), float(references.mean())
    required = 0.0 - rule.margin * reference
    sentence = (
        f"{rule.metric} of {rule.model} on {rule.slice} is {_short(value)}, of {relative_to} "
        f"{_short(reference)}; the difference is above {difference.low:+.4f} with "
        f"{100 * config.confidence:g} % confidence, above {required:+.4f} is required."
    )
    outcome: RuleOutcome = "pass" if difference.low > required else "fail"
    return RuleResult(
        rule=rule.name,
        outcome=outcome,
        sentence=sentence,
        value=value,
        reference=reference,
        bound=difference.low,
        required=required,
        n_users=len(values),
    )


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"
