import json
import tomllib

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from recsys_core.evaluation.gate import evaluate_rules
from recsys_core.evaluation.gate_config import GateConfig, GateRule
from recsys_core.evaluation.results import EvaluationMetrics
from recsys_core.evaluation.statistics import summarise

N_USERS = 200


def evidence(**ranks):
    """Content of `metrics.json`, and `ranks.parquet`, of these models; half the users are cold."""
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user:03}" for user in range(N_USERS)],
            "slice_cold_users": [user % 2 == 0 for user in range(N_USERS)],
            **{f"rank_{model}": column for model, column in ranks.items()},
        }
    )
    cold = frame.filter("slice_cold_users")
    by_slice = {
        name: summarise(
            {model: part[f"rank_{model}"].to_numpy() for model in ranks}, part["user_id"].to_numpy()
        )
        for name, part in (("all", frame), ("cold_users", cold))
    }
    models = {
        model: {
            "size_bytes": None,
            "slices": {name: figures[model] for name, figures in by_slice.items()},
        }
        for model in ranks
    }
    metrics = {
        "split": "test",
        "n_cases": N_USERS,
        "n_users": N_USERS,
        "dropped": {},
        "champion": {"version": None, "not_compared_because": None},
        "models": models,
    }
    return metrics, frame


def constant(rank):
    return np.full(N_USERS, rank)


def mixed(share_of_hits, seed=0):
    """Rank 1 for about that share of the users, else far behind."""
    return np.where(np.random.default_rng(seed).random(N_USERS) < share_of_hits, 1, 99)


def outcome(rule, metrics, ranks, figures=None, champion_exists=True):
    verdict = evaluate_rules(
        GateConfig(rules=(rule,), n_resamples=500),
        EvaluationMetrics.model_validate(metrics),
        ranks,
        figures or {},
        champion_exists=champion_exists,
    )
    assert verdict.passed == (verdict.rules[0].outcome == "pass")
    assert json.dumps(verdict.model_dump(mode="json"), allow_nan=False)
    return verdict.rules[0]


def rule_of(**fields):
    return GateRule.model_validate({"name": "rule", **fields})


def relative(**fields):
    return rule_of(**{"relative_to": "teacher", **fields})


def test_clearly_better_passes_and_says_by_how_much():
    found = outcome(relative(), *evidence(compressed=constant(1), teacher=constant(2)))
    assert found.outcome == "pass"
    assert found.value == 1
    assert found.reference == pytest.approx(1 / np.log2(3))
    assert found.bound == pytest.approx(1 - 1 / np.log2(3))
    assert found.required == 0
    assert found.n_users == N_USERS
    assert "is 1.0000, of teacher 0.6309" in found.sentence
    assert "95 % confidence" in found.sentence


def test_equal_models_are_not_inferior_but_not_better_either():
    figures = evidence(compressed=constant(2), teacher=constant(2))
    assert outcome(relative(margin=0.05), *figures).outcome == "pass"
    assert outcome(relative(margin=0.0), *figures).outcome == "fail"


def test_the_bound_decides_not_the_mean():
    compressed, teacher = mixed(0.31, seed=1), mixed(0.30, seed=2)
    figures = evidence(compressed=compressed, teacher=teacher)
    found = outcome(relative(margin=0.1), *figures)
    assert found.value is not None
    assert found.reference is not None
    assert found.value > 0.9 * found.reference
    assert found.outcome == "fail"
    assert outcome(relative(margin=0.6), *figures).outcome == "pass"


@pytest.mark.parametrize(("control", "decision"), [(3, "pass"), (2, "fail"), (1, "fail")])
def test_the_control_stands_in_for_an_external_teacher(control, decision):
    metrics, ranks = evidence(compressed=constant(2), control=constant(control))
    external = metrics | {"teacher_is_external": True}
    found = outcome(relative(margin=0.15), external, ranks)
    assert found.outcome == decision
    assert found.reference == pytest.approx(1 / np.log2(control + 1))
    assert found.required == 0
    assert found.sentence.startswith(
        "The teacher is external and ranks nothing. The control stands"
    )
    missing = outcome(relative(margin=0.15), metrics, ranks)
    assert (missing.outcome, missing.sentence) == ("fail", "The evaluation has no rank_teacher.")


def test_by_default_labels_that_do_harm_make_no_champion():
    """The student is 10 % below its control: near enough to a large teacher, not to its equal."""
    tenth = np.arange(N_USERS) % 10 == 0
    control, student = constant(1), np.where(tenth, 99, 1)
    for is_external, decision in ((True, "fail"), (False, "pass")):
        metrics, ranks = evidence(
            compressed=student, control=control, teacher=control, popularity=constant(50)
        )
        verdict = evaluate_rules(
            GateConfig(),
            EvaluationMetrics.model_validate(metrics | {"teacher_is_external": is_external}),
            ranks,
            {},
            champion_exists=False,
        )
        assert verdict.passed is not is_external
        assert [rule.outcome for rule in verdict.rules] == ["pass", "skipped", decision]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "teacher", "at_least": 0.1},
        {"model": "teacher", "relative_to": "popularity"},
        {"model": "teacher", "metric": "size_bytes", "at_most": 1},
        {"model": "control", "relative_to": "teacher"},
    ],
)
def test_a_rule_about_an_external_teacher_is_skipped(fields):
    metrics, ranks = evidence(control=constant(1), popularity=constant(2))
    found = outcome(rule_of(**fields), metrics | {"teacher_is_external": True}, ranks)
    assert found.outcome == "skipped"
    assert found.sentence == "The teacher is external and ranks nothing."


def test_margin_is_a_share_of_the_reference():
    figures = evidence(compressed=constant(3), teacher=constant(2))  # 0.5 against 0.6309
    assert outcome(relative(margin=0.20), *figures).outcome == "fail"
    assert outcome(relative(margin=0.21), *figures).outcome == "pass"


def test_a_negative_margin_demands_an_improvement():
    figures = evidence(compressed=constant(2), teacher=constant(3))  # 26 % better
    assert outcome(relative(margin=-0.2), *figures).outcome == "pass"
    assert outcome(relative(margin=-0.3), *figures).outcome == "fail"


def test_two_useless_models_pass_nothing():
    figures = evidence(compressed=constant(99), teacher=constant(99))
    assert outcome(relative(margin=0.5), *figures).outcome == "fail"


def test_a_slice_is_judged_by_its_own_cases():
    cold = np.arange(N_USERS) % 2 == 0
    figures = evidence(compressed=np.where(cold, 3, 1), teacher=constant(2))
    assert outcome(relative(), *figures).outcome == "pass"
    found = outcome(relative(slice="cold_users"), *figures)
    assert found.outcome == "fail"
    assert found.n_users == N_USERS // 2


def test_a_small_slice_is_reported_but_decides_nothing():
    figures = evidence(compressed=constant(1), teacher=constant(2))
    found = outcome(relative(slice="cold_users", min_users=101), *figures)
    assert found.outcome == "insufficient_n"
    assert found.n_users == 100
    assert "at least 101" in found.sentence


def test_absolute_bounds_on_ranking_metrics():
    figures = evidence(compressed=constant(2))
    rule = {"metric": "recall_at_10"}
    assert outcome(rule_of(**rule, at_least=1.0), *figures).outcome == "pass"
    assert outcome(rule_of(**rule, at_least=1.01), *figures).outcome == "fail"
    assert outcome(rule_of(**rule, at_most=0.5), *figures).outcome == "fail"


@pytest.mark.parametrize(
    ("size", "expected"),
    [(500_000, "pass"), (500_001, "fail"), (None, "fail"), (float("nan"), "fail")],
)
def test_absolute_bounds_on_the_artefact(size, expected):
    rule = GateRule(name="small", metric="size_bytes", at_most=500_000)
    figures = {"compressed": {"size_bytes": size}}
    assert outcome(rule, *evidence(compressed=constant(1)), figures).outcome == expected


def test_a_figure_of_another_model_does_not_help():
    rule = GateRule(name="fast", metric="latency_ms_p50", at_most=5)
    figures = {"student": {"latency_ms_p50": 1.0}}
    found = outcome(rule, *evidence(compressed=constant(1)), figures)
    assert found.outcome == "fail"
    assert "no latency_ms_p50 of compressed" in found.sentence


NOT_COMPARED = {"version": 3, "not_compared_because": "It was trained on the window."}
WITHOUT_REASON = {"version": 3, "not_compared_because": None}
NO_CHAMPION = {"version": None, "not_compared_because": None}


@pytest.mark.parametrize(
    ("champion", "reason"),
    [(NOT_COMPARED, "It was trained on the window."), (NO_CHAMPION, "There is no champion.")],
)
def test_rules_relative_to_the_champion_are_skipped_where_there_is_none(champion, reason):
    metrics, ranks = evidence(compressed=constant(1))
    metrics["champion"] = champion
    found = outcome(relative(relative_to="champion"), metrics, ranks, champion_exists=False)
    assert found.outcome == "skipped"
    assert found.sentence == reason


@pytest.mark.parametrize("champion", [NOT_COMPARED, WITHOUT_REASON, NO_CHAMPION])
def test_a_champion_without_figures_fails(champion):
    metrics, ranks = evidence(compressed=constant(1))
    metrics["champion"] = champion
    found = outcome(relative(relative_to="champion"), metrics, ranks)
    assert found.outcome == "fail"
    assert "no rank_champion." in found.sentence
    assert (champion["not_compared_because"] or "") in found.sentence


def test_a_missing_slice_fails():
    found = outcome(relative(slice="tail"), *evidence(compressed=constant(1), teacher=constant(2)))
    assert found.outcome == "fail"
    assert "slice_tail" in found.sentence


@pytest.mark.parametrize("damage", [None, 0])
def test_damaged_ranks_fail(damage):
    metrics, ranks = evidence(compressed=constant(1), teacher=constant(2))
    damaged = pl.when(pl.col("user_id") == "u007").then(damage).otherwise("rank_compressed")
    ranks = ranks.with_columns(rank_compressed=damaged)
    assert outcome(relative(), metrics, ranks).outcome == "fail"


def test_ranks_that_are_no_whole_numbers_fail():
    metrics, ranks = evidence(compressed=constant(1), teacher=constant(2))
    ranks = ranks.with_columns(pl.col("rank_compressed").cast(pl.Float64) * float("nan"))
    assert outcome(relative(), metrics, ranks).outcome == "fail"


def test_a_case_without_a_slice_mark_fails():
    metrics, ranks = evidence(compressed=constant(1), teacher=constant(2))
    unknown = pl.when(pl.col("user_id") == "u007").then(None).otherwise("slice_cold_users")
    ranks = ranks.with_columns(slice_cold_users=unknown)
    assert outcome(relative(slice="cold_users"), metrics, ranks).outcome == "fail"


@pytest.mark.parametrize("reported", [None, float("nan"), 0.9])
@pytest.mark.parametrize("model", ["compressed", "teacher"])
def test_metrics_that_contradict_the_ranks_fail(model, reported):
    metrics, ranks = evidence(compressed=constant(1), teacher=constant(2))
    metrics["models"][model]["slices"]["all"]["ndcg_at_10"]["mean"] = reported
    found = outcome(relative(), metrics, ranks)
    assert found.outcome == "fail"
    assert "evaluate again" in found.sentence


def test_metrics_without_the_model_fail():
    metrics, ranks = evidence(compressed=constant(1), teacher=constant(2))
    del metrics["models"]["compressed"]
    assert outcome(relative(), metrics, ranks).outcome == "fail"


def verdict_of(rules):
    metrics, ranks = evidence(compressed=constant(2), teacher=constant(3))
    metrics = EvaluationMetrics.model_validate(metrics)
    return evaluate_rules(GateConfig(rules=rules), metrics, ranks, {}, champion_exists=False)


GOOD = relative(name="good")
BAD = GateRule(name="bad", at_least=0.99)
SKIPPED = relative(name="skipped", relative_to="champion")
SMALL = relative(name="small", min_users=10**6)


def test_all_decided_rules_must_hold():
    assert verdict_of((GOOD, SKIPPED, SMALL)).passed
    verdict = verdict_of((GOOD, SKIPPED, BAD))
    assert not verdict.passed
    assert verdict.sentence.startswith("1 of 2 decided rules failed. bad: ndcg_at_10 of compressed")
    assert [rule.outcome for rule in verdict.rules] == ["pass", "skipped", "fail"]


def test_a_gate_that_decided_nothing_refuses():
    verdict = verdict_of((SKIPPED, SMALL))
    assert not verdict.passed
    assert "None of the 2 rules could be decided" in verdict.sentence


def test_equal_evidence_gives_equal_verdicts():
    assert verdict_of((GOOD, BAD)) == verdict_of((GOOD, BAD))


def test_rules_are_read_from_toml():
    text = """
    confidence = 0.9
    [[rules]]
    name = "small"
    metric = "size_bytes"
    at_most = 500_000
    [[rules]]
    name = "close to the teacher"
    relative_to = "teacher"
    margin = 0.05
    """
    config = GateConfig.model_validate(tomllib.loads(text))
    assert config.rules[0].at_most == 500_000
    assert config.rules[1].model == "compressed"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"at_least": 0.1, "relative_to": "teacher"}, "exactly one"),
        ({"at_most": 0.1, "margin": 0.1}, "no relative_to"),
        ({"relative_to": "student", "model": "student"}, "with itself"),
        ({"relative_to": "teacher", "metric": "size_bytes"}, "neither users nor slices"),
        ({"at_most": 1, "metric": "size_bytes", "slice": "tail"}, "neither users nor slices"),
        ({"at_least": float("nan")}, "finite"),
        ({"relative_to": "yesterday"}, "relative_to"),
        ({"relative_to": "teacher", "margin": 1.0}, "less than 1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        rule_of(**fields)


def test_rules_of_the_same_name_and_no_rules_are_refused():
    with pytest.raises(ValidationError, match="occur twice: good"):
        GateConfig(rules=(GOOD, GOOD))
    with pytest.raises(ValidationError, match="at least 1 item"):
        GateConfig(rules=())


def test_every_setting_is_described():
    for settings in (GateRule, GateConfig):
        assert all(field.description for field in settings.model_fields.values())
