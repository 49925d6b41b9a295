"""The report stage: what the page says, and that foreign text and little data do it no harm."""

import re
from pathlib import Path

import pytest

from recsys_core.artifacts import digest
from recsys_core.evaluation.gate_config import GateRule
from recsys_core.evaluation.results import MODELS, EvaluationMetrics
from tasks.contracts.evaluation import Latencies
from tasks.contracts.family import Family, FamilyMember
from tasks.contracts.network import Curve
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
    split,
    validation_report,
    verdict,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_recipe_is_shown_with_its_reasons(world: World) -> None:
    _, page = world.render()
    assert "teacher.model.n_layers = 4" in page
    assert "Histories of 20 events: 4 layers." in page


def test_the_report_tells_the_whole_night(world: World) -> None:
    summary, html = world.render()
    page = HtmlPage(html)
    text = words(page)
    assert page.open == []
    assert summary == {"passed": True, "bytes": len(html.encode())}
    assert "Promoted: the compressed student becomes champion" in text
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
        name="XS", size_bytes=90_000, ndcg_at_10=0.1, low=-0.06, is_good_enough=False
    )
    family = Family(members=(*ALONE.members, other), ships="main")
    network = {"encoder": "gru", "n_layers": 1, "n_repeats": 2, "embedding_dim": 64, "ffn_dim": 96}
    config = {"metadata": {"network": network}}
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
    assert "90 kB" in text
    assert "main, ships" not in World(world.folder / "alone").render()[1]


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
        world.files[stage] = {Curve.file_name: Curve(epochs=[])}
    text = words(HtmlPage(world.render()[1]))
    assert "Nothing was new this night" in text
    assert "No row was quarantined" in text
    assert "Learning" not in text


def test_many_files_are_counted_not_listed(world: World) -> None:
    files = [file(f"day-{day:03}.csv") for day in range(130)]
    world.files["ingest"]["ingest.json"] = ingest_result(files)
    text = words(HtmlPage(world.render()[1]))
    assert "day-049.csv" in text
    assert "day-050.csv" not in text
    assert "And 80 more files." in text


def test_every_evaluated_model_is_described() -> None:
    assert tuple(DESCRIPTIONS) == MODELS
