"""The report stage: what the page says, and that foreign text and little data do it no harm."""

import re
from pathlib import Path

import pytest

from recsys_core.artifacts import digest
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.evaluation.gate_config import GateRule
from recsys_core.evaluation.recency_prior import RecencyPrior
from recsys_core.evaluation.results import MODELS, EvaluationMetrics
from tasks.contracts.evaluation import Latencies
from tasks.contracts.family import Family, FamilyMember
from tasks.contracts.network import Curve, NetworkSummary
from tasks.stages.report import DESCRIPTIONS
from tests.html_page import HtmlPage, words
from tests.tasks.stages.made_up_night import (
    ALONE,
    HOSTILE,
    METRICS,
    World,
    file,
    ingest_result,
    registered,
    soft_labels,
    split,
    summary,
    validation_report,
    verdict,
)
from tests.teacher_check import made_up_check

NETWORK = {"encoder": "gru", "n_layers": 1, "n_repeats": 2, "embedding_dim": 64, "ffn_dim": 96}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_recipe_is_shown_with_its_reasons(world: World) -> None:
    _, page = world.render()
    assert "teacher.model.n_layers = 4" in page
    assert "Histories of 20 events: 4 layers." in page


def test_it_says_what_is_added_to_scores(world: World) -> None:
    assert "Recent popularity is added" not in world.render()[1]
    prior = RecencyPrior(gamma=2.0, delta=0.0, ndcg_without=0.0729, ndcg_at_10=0.129)
    world.summaries = {
        "train_teacher": {"recency_prior": prior.model_dump()},
        "control": {"recency_prior": None},
    }
    of_student = prior.model_copy(update={"gamma": 0.25})
    world.files["distill"][NetworkSummary.file_name] = summary(of_student)
    page = words(HtmlPage(world.render()[1]))
    assert page.count("Recent popularity is added") == 2
    assert "Teacher: Recent popularity is added to scores: γ=2, δ=0: " in page
    assert "Student: Recent popularity is added to scores: γ=0.25, δ=0: " in page
    assert "validation NDCG@10 0.0729 → 0.1290." in page


def test_curve_and_prior_are_those_of_the_student_that_ships(world: World) -> None:
    small = ALONE.members[0].model_copy(update={"name": "S"})
    config = {"metadata": {"network": NETWORK}}
    world.files["compress"] |= {
        Family.file_name: Family(members=(*ALONE.members, small), shipped="S"),
        "config.json": config,
        "sizes/main/config.json": config,
    }
    models = METRICS.models | {"size_main": METRICS.models["popularity"]}
    metrics = METRICS.model_copy(update={"models": models})
    world.files["evaluate"][EvaluationMetrics.file_name] = metrics
    prior = RecencyPrior(gamma=4.0, delta=0.0, ndcg_without=0.07, ndcg_at_10=0.13)
    of_small = prior.model_copy(update={"gamma": 0.5})
    for stage in ("train_teacher", "control"):
        world.files[stage] = {Curve.file_name: Curve(epochs=[])}
    world.files["distill"][NetworkSummary.file_name] = summary(prior)
    world.files["distill"] |= {
        f"sizes/S/{NetworkSummary.file_name}": summary(of_small).model_dump(mode="json"),
        f"sizes/S/{Curve.file_name}": [],
    }
    world.summaries = {"distill": {"recency_prior": prior.model_dump()}}
    text = _text(world)
    assert "Student: Recent popularity is added to scores: γ=0.5, δ=0: " in text
    assert "γ=4" not in text
    assert "Learning" not in text, "only the main student, which does not ship, has a curve"


def test_the_report_tells_the_whole_night(world: World) -> None:
    summary, html = world.render()
    page = HtmlPage(html)
    text = words(page)
    assert page.open == []
    assert summary == {"passed": True, "bytes": len(html.encode())}
    assert "Promoted: the compressed student becomes champion" in text
    assert "made elsewhere" not in text
    ndcg = METRICS.models["compressed"].slices["all"].ndcg_at_10
    assert f"{ndcg.mean:.4f} [{ndcg.low:.4f}, {ndcg.high:.4f}]" in text
    for expected in (
        "Item-kNN", "4.81 MB", "2.31 ms", "too few users", "not worse than the champion",
        "events/2026-02-28.csv", "48,211", "item_id is missing", "2026-02-27T00:00:00+00:00",
        "lies before the end", "interactions 12", "demo-student", "212 events",
        digest("train_teacher"), digest("write_soft_labels"), "torch 2.13.0",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_students_of_a_family_are_compared(world: World) -> None:
    other = FamilyMember(
        name="XS", size_bytes=90_000, ndcg_at_10=0.1, low=-0.06, fits=True, is_good_enough=False
    )
    family = Family(members=(*ALONE.members, other), shipped="main")
    config = {"metadata": {"network": NETWORK}}
    world.files["compress"] |= {
        Family.file_name: family,
        "config.json": config,
        "sizes/XS/config.json": config,
    }
    models = METRICS.models | {"size_XS": METRICS.models["popularity"]}
    metrics = METRICS.model_copy(update={"models": models})
    world.files["evaluate"][EvaluationMetrics.file_name] = metrics
    _, html = world.render()
    text = words(HtmlPage(html))
    assert "XSgru, 1 × 2 layers, width 64, 96 channels 0.1000 -0.0600 no" in text
    assert "main, ships" in text
    assert "too large" not in text
    assert "90 kB" in text
    assert "main, ships" not in World(world.folder / "alone").render()[1]
    large = family.members[0].model_copy(update={"fits": False, "is_good_enough": False})
    world.files["compress"][Family.file_name] = Family(members=(large, other), shipped="XS")
    world.files["compress"]["sizes/main/config.json"] = config
    world.files["distill"] |= {
        f"sizes/XS/{NetworkSummary.file_name}": summary().model_dump(mode="json"),
        f"sizes/XS/{Curve.file_name}": [],
    }
    models = METRICS.models | {"size_main": METRICS.models["popularity"]}
    world.files["evaluate"][EvaluationMetrics.file_name] = METRICS.model_copy(
        update={"models": models}
    )
    assert "0.1500 0.0000 too large" in _text(world)


def test_a_refused_night_says_why(world: World) -> None:
    world.files["gate"]["verdict.json"] = verdict(GateRule(name="dream", at_least=0.99))
    summary, html = world.render()
    assert not summary["passed"]
    text = words(HtmlPage(html))
    assert "Refused: the compressed student is not promoted" in text
    assert "dream: ndcg_at_10 of compressed on all is" in text


def test_nothing_is_fetched_and_nothing_runs(world: World) -> None:
    _, html = world.render()
    page = HtmlPage(html)
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert not page.tags & {"script", "link", "iframe", "object", "img"}
    assert not re.search(r"@import|url\((?!#)|javascript:|\son\w+=", html)


def test_it_says_where_labels_do_not_count(world: World) -> None:
    cold = "On cold_users the teacher has 0.03, its baseline 0.04."
    assert "The teacher's labels count everywhere: neither for cold users" in _text(world)
    world.files["check_teacher"]["check.json"] = made_up_check("cold_users", "tail")
    text = _text(world)
    assert f"{cold} The teacher's labels don't count there." in text
    tail = cold.replace("cold_users", "tail")
    assert f"{tail} What the teacher says of these items doesn't count." in text
    assert "On warm_users" not in text
    world.trust = "everywhere"
    assert "All labels count, because distillation.trust is everywhere." in _text(world)
    world.files["write_soft_labels"]["soft_labels.json"] = soft_labels(teacher="an LLM")
    text = _text(world)
    assert "The labels are of another teacher, an LLM; all of them count." in text
    assert cold not in text


def _text(world: World) -> str:
    return words(HtmlPage(world.render()[1]))


def test_foreign_text_is_escaped_everywhere(world: World) -> None:
    world.files["register"]["registered.json"] = registered(name=HOSTILE)
    world.files["gate"]["verdict.json"] = verdict(GateRule(name=HOSTILE, at_least=0.01))
    world.files["ingest"]["ingest.json"] = ingest_result([file(HOSTILE, reasons={HOSTILE: 3})])
    world.files["prepare"]["split.json"] = split(event_types=(HOSTILE,))
    page = HtmlPage(world.render()[1])
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 6


def test_ids_are_unique_and_references_lead_somewhere(world: World) -> None:
    page = HtmlPage(world.render()[1])
    assert len(set(page.ids)) == len(page.ids)
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)


def test_equal_nights_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (World(tmp_path / name).render()[1] for name in ("a", "b"))
    assert first == second


def test_a_first_night_with_little_to_show(world: World) -> None:
    models = {
        name: result.model_copy(update={"size_bytes": None})
        for name, result in METRICS.models.items()
        if name not in ("champion", "control")
    }
    metrics = METRICS.model_copy(update={"models": models})
    world.files["evaluate"] = {"metrics.json": metrics, "latency.json": Latencies(models={})}
    world.files["validate"]["validation.json"] = validation_report(())
    world.files["ingest"]["ingest.json"] = ingest_result([])
    for stage in ("train_teacher", "distill", "control"):
        world.files[stage] |= {Curve.file_name: Curve(epochs=[])}
    text = words(HtmlPage(world.render()[1]))
    assert "Nothing was new this night" in text
    assert "No row was quarantined" in text
    assert "Learning" not in text


def test_an_external_teacher_is_named_and_the_control_is_the_reference(world: World) -> None:
    for stage in ("plan_teacher", "train_teacher", "check_teacher"):
        del world.files[stage]
    models = {name: result for name, result in METRICS.models.items() if name != "teacher"}
    metrics = METRICS.model_copy(update={"models": models, "teacher_is_external": True})
    world.files["evaluate"]["metrics.json"] = metrics
    world.files["write_soft_labels"]["label_origin.json"] = LabelOrigin(
        teacher=HOSTILE,
        trained_through=None,
        store_sha256="ab12",
        labels=1_200,
        stale=34,
        users=900,
        n_users=1_000,
        positions=1_200,
        n_positions=9_600,
    )
    page = HtmlPage(world.render()[1])
    text = words(page)
    assert "No teacher was trained: the student learned from these labels" in text
    assert "1,200 of 9,600 training positions (12.5 %), 900 of 1,000 users" in text
    assert "1,200 used, 34 left out" in text
    assert HOSTILE in page.text
    shipped, control = (
        models[name].slices["all"].ndcg_at_10.mean for name in ("compressed", "control")
    )
    assert f"Of the control{100 * (shipped or 0) / (control or 1):.1f} %" in text
    assert "NDCG@10of control" in text
    assert digest("train_teacher") not in text


def test_many_files_are_counted_not_listed(world: World) -> None:
    files = [file(f"day-{day:03}.csv") for day in range(130)]
    world.files["ingest"]["ingest.json"] = ingest_result(files)
    text = words(HtmlPage(world.render()[1]))
    assert "day-049.csv" in text
    assert "day-050.csv" not in text
    assert "And 80 more files." in text


def test_every_evaluated_model_is_described() -> None:
    assert tuple(DESCRIPTIONS) == MODELS
