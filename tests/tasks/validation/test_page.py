"""The page of the validation: what it says, offline, with all foreign text escaped."""

import re
from datetime import date, timedelta

from recsys_core.data.drift.day_profile import Comparison, DayFigure
from tasks.contracts.ingest import FileResult
from tasks.validation.findings import Finding
from tasks.validation.new_rows import Days, ValidationResult
from tasks.validation.page import validation_page
from tasks.validation.rules import BETWEEN, Rule
from tests.html_page import HtmlPage, words

HOSTILE = '<script>alert("x")</script> & $\\frac{1}{2}$'
DAY = date(2026, 1, 9)
BEFORE = tuple(DAY - timedelta(days=back) for back in (3, 2, 1))


def _finding(value: str, *, holds: bool) -> Finding:
    finding = Finding(Rule("rows", "are many", "Look.", BETWEEN, {"column": HOSTILE}))
    finding.add(holds, 0 if holds else 1, [] if holds else [value])
    return finding


def _result() -> ValidationResult:
    shifts = dict(zip((*BEFORE, DAY), (0.1, 0.2, 0.1, 1.0), strict=True))
    figure = DayFigure(0.5, 0.25, 0.25)
    compared = Comparison(
        DAY, BEFORE, DayFigure(80, 100, 0.8), None, figure, figure, figure, (HOSTILE,), (), shifts
    )
    late = DAY - timedelta(days=20)
    days = Days([compared], {late: "1 late rows"}, {DAY: 80, late: 9, **dict.fromkeys(BEFORE, 100)})
    return ValidationResult(80, [_finding("", holds=True), _finding(HOSTILE, holds=False)], days)


def _file(source: str) -> FileResult:
    return FileResult(
        source=source,
        fingerprint="f",
        new=True,
        rows_in=90,
        rows_kept=80,
        rows_quarantined=7,
        rows_duplicate=3,
        reasons={HOSTILE: 7},
    )


def _page(result: ValidationResult, files: list[FileResult]) -> tuple[str, HtmlPage]:
    html = validation_page(result, files, run_date=date(2026, 1, 10))
    return html, HtmlPage(html)


def _cells(html: str) -> str:
    """The text, with a blank between neighbouring cells."""
    return words(HtmlPage(html.replace("<", " <")))


def test_the_page_tells_what_was_found_by_rule_file_and_day() -> None:
    html, page = _page(_result(), [_file("a.csv"), _file("b.csv")])
    assert page.open == []
    text = _cells(html)
    for expected in (
        "Validation failed: nothing is trained on this",
        "b.csv 90 80 7 3",
        "All new files 180 160 14 6",
        "2026-01-09 against 3 days 80 usually 100 – 0.500 usually 0.250",
        "2025-12-20 1 late rows",
    ):
        assert expected in text


def test_it_renders_offline_and_runs_nothing() -> None:
    html, page = _page(_result(), [_file("a.csv")])
    assert "svg" in page.tags
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not page.tags & {"script", "link", "iframe", "object", "img"}
    assert not re.search(r"@import|url\((?!#)|javascript:|\son\w+=", html)


def test_foreign_text_is_escaped_everywhere() -> None:
    _, page = _page(_result(), [_file(HOSTILE)])
    assert page.text.count(HOSTILE) >= 5  # rule, sample, kind of event, file, reason


def test_equal_findings_give_equal_bytes() -> None:
    files = [_file("a.csv")]
    assert _page(_result(), files)[0] == _page(_result(), files)[0]


def test_where_nothing_is_new_it_says_so() -> None:
    text = words(_page(ValidationResult(), [])[1])
    assert "Validation passed: nothing is new" in text
    assert "No date has new rows" in text


def test_many_files_are_counted_not_listed() -> None:
    text = _cells(_page(_result(), [_file(f"day-{number:03}") for number in range(60)])[0])
    assert "day-049" in text
    assert "day-050" not in text
    assert "And 10 more files" in text
    assert "All new files 5,400" in text
