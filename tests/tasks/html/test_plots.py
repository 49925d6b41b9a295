"""Plots: what they name, how they look, and that equal figures give equal bytes."""

import xml.etree.ElementTree as ElementTree

import pytest

from recsys_core.evaluation.results import MODELS
from tasks.contracts.network import Curve, Epoch
from tasks.html.plots import (
    LOOKS,
    Estimate,
    curve_plot,
    quality_plot,
    size_plot,
    slice_plot,
)

ESTIMATES = {
    "teacher": Estimate(0.17, 0.16, 0.18),
    "compressed": Estimate(0.15, 0.14, 0.16),
    "popularity": Estimate(0.02, 0.02, 0.03),
}
CURVE = Curve(
    epochs=[
        Epoch(epoch=1, loss=7.1, validation_ndcg_at_10=None),
        Epoch(epoch=2, loss=6.0, validation_ndcg_at_10=0.1),
    ]
)


def drawn() -> dict[str, str]:
    return {
        "quality": quality_plot(ESTIMATES),
        "size": size_plot(ESTIMATES, {"teacher": 4e6, "compressed": 3e5}),
        "slices": slice_plot({"All (9)": ESTIMATES, "Tail (3)": {"teacher": Estimate(0, 0, 0)}}),
        "curves": curve_plot({"teacher": CURVE}),
    }


def texts(svg: str) -> list[str]:
    # Parsing it at all shows that it is well-formed.
    return [part.text for part in ElementTree.fromstring(svg).iter() if part.text]  # noqa: S314


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quality", ["Teacher", "Compressed", "Popularity", "0.1700", "NDCG@10"]),
        ("size", ["Teacher, 4 MB", "Compressed, 300 kB"]),
        ("slices", ["All (9)", "Tail (3)", "Teacher", "Popularity"]),
        ("curves", ["Validation NDCG@10", "Training loss, nats", "Teacher"]),
    ],
)
def test_plots_name_what_they_show(name: str, expected: list[str]) -> None:
    found = texts(drawn()[name])
    assert [text for text in expected if text not in found] == []


def test_plots_are_deterministic_and_for_screen_readers() -> None:
    first, second = drawn(), drawn()
    assert first == second
    for svg in first.values():
        assert svg.startswith('<svg class="plot" role="img" aria-label="')
        assert "<metadata>" not in svg


def test_models_without_a_size_are_not_on_the_size_plot() -> None:
    assert "Popularity" not in drawn()["size"]


def test_colours_follow_the_page() -> None:
    svg = drawn()["quality"]
    assert f"var(--teacher, {LOOKS['teacher'].colour})" in svg
    assert "var(--ink, " in svg


def test_labels_are_text_not_markup_or_formulas() -> None:
    svg = slice_plot({"<b> & $\\frac$ (1)": ESTIMATES})
    assert "<b> & $\\frac$ (1)" in texts(svg)


def test_nothing_to_show_is_no_error() -> None:
    for svg in (quality_plot({}), size_plot({}, {}), slice_plot({}), curve_plot({})):
        assert texts(svg)


def test_every_evaluated_model_has_a_look() -> None:
    assert tuple(LOOKS) == MODELS
