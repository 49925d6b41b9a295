"""The validation stage: what it lets through, what it stops, and what it says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from recsys_core.artifacts import Artifact, sha256_file
from recsys_core.data.lake.ingest_log import read_ingest_log
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS
from recsys_core.settings import silent
from tasks.contracts.ingest import IngestResult
from tasks.stages.validate import ValidationConfig, ValidationFailedError
from tasks.validation.findings import with_outcome
from tasks.validation.great_expectations import GxRunner, Suite, own_rules
from tasks.validation.new_rows import NewRows, RuleSet
from tasks.validation.rules import BETWEEN, OwnExpectation, row_rules
from tests.validation_stage import ingest_text, run_validate, written_report

GOOD = "u,i,2026-01-01,view,1\nv,i,2026-01-02,buy,2\n"


def test_good_rows_pass_and_are_no_longer_new(tmp_path: Path) -> None:
    ingested = ingest_text(tmp_path, GOOD)
    assert run_validate(tmp_path, ingested)["n_rows"] == 2
    assert written_report(tmp_path)["success"] is True
    first = sha256_file(tmp_path / "validate" / "validation.json")
    run_validate(tmp_path, ingested)
    assert sha256_file(tmp_path / "validate" / "validation.json") == first
    ingest_text(tmp_path, GOOD)
    nothing = dict.fromkeys(("n_rows", "n_expectations", "n_failed", "n_warned", "n_skipped"), 0)
    assert run_validate(tmp_path, ingested) == nothing
    assert "Nothing is new" in (tmp_path / "validate" / "validation.md").read_text()


def test_what_failed_stays_new_until_it_is_corrected(tmp_path: Path) -> None:
    for _ in range(2):
        ingested = ingest_text(tmp_path, GOOD)
        with pytest.raises(ValidationFailedError):
            run_validate(tmp_path, ingested, event_types=["view"])
    (record,) = read_ingest_log(Lake(tmp_path / "lake")).values()
    assert not record.validated
    ingested = ingest_text(tmp_path, GOOD.replace("buy", "view"))
    assert run_validate(tmp_path, ingested, event_types=["view"])["n_failed"] == 0


def test_the_failure_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    ingested = ingest_text(tmp_path, GOOD + "w,i,2026-01-02,bye,1\n")
    with pytest.raises(ValidationFailedError) as caught:
        run_validate(tmp_path, ingested, event_types=["view"])
    assert (
        "- **event_type** is one of view; 2 are not, for example buy (interactions/a.csv row "
        "2), bye (interactions/a.csv row 3). Correct the file, or add the kind to "
        "validation.event_types." in str(caught.value)
    )
    assert (tmp_path / "validate" / "validation.md").read_text() == str(caught.value)
    failed = [one for one in written_report(tmp_path)["expectations"] if not one["success"]]
    assert [(one["column"], one["unexpected"], one["sample"]) for one in failed] == [
        ("event_type", 2, ["buy", "bye"])
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_rows": 3}, "**rows** are at least 3; found: 2"),
        ({"min_rows": 0, "max_rows": 1}, "**rows** are at least 0 and at most 1"),
    ],
)
def test_too_few_or_too_many_rows_fail(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValidationFailedError) as caught:
        run_validate(tmp_path, ingest_text(tmp_path, GOOD), **settings)
    assert message in str(caught.value)


def test_too_many_quarantined_rows_fail(tmp_path: Path) -> None:
    text = GOOD + ",i,2026-01-02,view,1\n"
    with pytest.raises(
        ValidationFailedError, match=r"quarantined share\*\* is at most 0\.05.*0\.333"
    ):
        run_validate(tmp_path, ingest_text(tmp_path, text))
    assert (
        run_validate(tmp_path, ingest_text(tmp_path, text, max_quarantined_share=0.34))["n_rows"]
        == 2
    )


def test_early_rows_are_neither_good_nor_bad(tmp_path: Path) -> None:
    ingested = ingest_text(tmp_path, GOOD + "w,i,2026-01-10,view,1\n" * 5)
    assert run_validate(tmp_path, ingested)["n_rows"] == 2


def _tamper(workspace: Path, change: list[pl.Expr] | str) -> Artifact:
    """Rows that went around the ingest."""
    ingested = ingest_text(workspace, GOOD)
    rows = Lake(workspace / "lake").scan("interactions").collect()
    rows = rows.drop(change) if isinstance(change, str) else rows.with_columns(change)
    place = str(workspace / "lake" / "interactions")
    rows.write_delta(place, mode="overwrite", delta_write_options={"schema_mode": "overwrite"})
    result = IngestResult.load(ingested)
    version = Lake(workspace / "lake").version("interactions")
    versions = {**result.versions, "interactions": version}
    result.model_copy(update={"versions": versions}).save(ingested.folder)
    return ingested


@pytest.mark.parametrize(
    ("change", "column", "expectation"),
    [
        ([pl.lit(None, pl.String).alias("user_id")], "user_id", "has no missing values"),
        ([pl.lit(float("inf"), pl.Float32).alias("weight")], "weight", "is finite"),
        ([pl.col("timestamp").dt.offset_by("1y")], "timestamp", "is before 2026-01-10 00:00:00"),
        ([pl.col("timestamp").dt.offset_by("-50y")], "timestamp", "is at least 1990-01-01"),
        ([pl.col("weight").cast(pl.Float64)], "weight", "is of type Float32"),
        ("event_type", "event_type", "exists"),
    ],
)
def test_rows_that_went_around_the_ingest_are_found(
    tmp_path: Path, change: list[pl.Expr] | str, column: str, expectation: str
) -> None:
    with pytest.raises(ValidationFailedError):
        run_validate(tmp_path, _tamper(tmp_path, change))
    failed = [one for one in written_report(tmp_path)["expectations"] if not one["success"]]
    (found,) = (
        one
        for one in failed
        if one["column"] == column and one["expectation"].startswith(expectation)
    )
    assert found["remedy"]


def test_repeated_rows_are_found(tmp_path: Path) -> None:
    same = [
        pl.lit("u").alias("user_id"),
        pl.col("timestamp").min(),
        pl.col("date").min(),
        pl.lit("x").alias("event_type"),
    ]
    ingested = _tamper(tmp_path, same)
    with pytest.raises(ValidationFailedError, match=r"repeated rows\*\* are none; found: 1\b"):
        run_validate(tmp_path, ingested)


def test_rows_under_another_date_are_found(tmp_path: Path) -> None:
    ingested = _tamper(tmp_path, [pl.col("timestamp").dt.offset_by("-1d")])
    with pytest.raises(ValidationFailedError, match=r"misplaced rows\*\* are none; found: 2\b"):
        run_validate(tmp_path, ingested)


def test_a_missing_value_is_named_with_its_place(tmp_path: Path) -> None:
    ingested = _tamper(tmp_path, [pl.lit(None, pl.String).alias("item_id")])
    with pytest.raises(ValidationFailedError) as caught:
        run_validate(tmp_path, ingested)
    assert (
        "**item_id** has no missing values; 2 are not, for example missing "
        "(interactions/a.csv row 1), missing (interactions/a.csv row 2)." in str(caught.value)
    )


def test_where_a_column_is_missing_only_columns_are_checked(tmp_path: Path) -> None:
    """Great Expectations answers such rules without figures: no other rule says anything."""
    with pytest.raises(
        ValidationFailedError, match=r"\*\*weight\*\* exists; found: nothing to examine"
    ):
        run_validate(tmp_path, _tamper(tmp_path, "weight"))
    report = written_report(tmp_path)
    assert {one["expectation"] for one in report["expectations"] if not one["success"]} == {
        "exists",
        "is of type Float32",
    }
    assert report["days"] == []


@pytest.mark.parametrize("piece_rows", [2, 100])
def test_samples_are_the_first_rows_however_the_rows_are_split(
    tmp_path: Path, piece_rows: int
) -> None:
    text = "".join(f"u{row},i,2026-01-0{1 + row % 2},k{row % 3},1\n" for row in range(12))
    ingested = IngestResult.load(ingest_text(tmp_path, text))
    new = NewRows(Lake(tmp_path / "lake"), ingested, piece_rows=piece_rows)
    rows = row_rules(INTERACTIONS, until=new.until, event_types=["k1"])
    result = new.check(GxRunner(), RuleSet(rows, [], []), trailing_days=7, progress=silent)
    (failed,) = with_outcome(result.findings, "failed")
    assert failed.unexpected == 8
    assert failed.sample == ["k0", "k2", "k0"]
    assert failed.places == [f"interactions/a.csv row {row}" for row in (1, 3, 7)]
    assert [finding.note for finding in result.findings if finding.note] == []


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], ["2026-01-01-to-2026-01-02", "2026-01-03"]),
        (["expect_column_mean_to_be_between"], ["2026-01-01", "2026-01-02", "2026-01-03"]),
    ],
)
def test_dates_are_checked_together_unless_a_rule_is_about_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: list[str], expected: list[str]
) -> None:
    names: list[str] = []
    run = Suite.run

    def recorded(suite: Suite, rows: pl.DataFrame, name: str, places: Any = None) -> None:
        names.append(name)
        run(suite, rows, name, places)

    monkeypatch.setattr(Suite, "run", recorded)
    text = "".join(f"u{row},i,2026-01-0{1 + row // 4},view,1\n" for row in range(12))
    ingested = IngestResult.load(ingest_text(tmp_path, text))
    rules = row_rules(INTERACTIONS, until=datetime(2027, 1, 1, tzinfo=UTC), event_types=[])
    settings = [{"type": name, "column": "weight", "min_value": 0} for name in own]
    rules += own_rules([OwnExpectation.model_validate(one) for one in settings])
    names.clear()
    new = NewRows(Lake(tmp_path / "lake"), ingested, piece_rows=8)
    result = new.check(GxRunner(), RuleSet(rules, [], []), trailing_days=7, progress=silent)
    assert result.n_rows == 12
    assert [name for name in names if name.startswith("2026")] == expected


def test_what_only_warns_is_said_everywhere_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingested = ingest_text(tmp_path, GOOD)
    summary = run_validate(
        tmp_path, ingested, event_types=["view"], severity={"event_type is known": "warn"}
    )
    assert (summary["n_failed"], summary["n_warned"]) == (0, 1)
    sentence = "**event_type** is one of view; 1 is not, for example buy (interactions/a.csv row 2)"
    assert sentence in caplog.text
    written = (tmp_path / "validate" / "validation.md").read_text()
    assert written.startswith("# Validation passed, with 1 warning\n")
    assert sentence in written
    page = (tmp_path / "validate" / "validation.html").read_text()
    assert "Validation passed, with 1 warning" in page
    (warned,) = (
        one for one in written_report(tmp_path)["expectations"] if one["outcome"] == "warned"
    )
    assert (warned["severity"], warned["success"]) == ("warn", False)
    assert written_report(tmp_path)["success"] is True
    (record,) = read_ingest_log(Lake(tmp_path / "lake")).values()
    assert record.validated


def test_an_unknown_rule_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValidationError, match=r"no rule: new item shares\. There are: .*new item"):
        ValidationConfig.model_validate({"severity": {"new item shares": "warn"}})
    with pytest.raises(ValidationError, match="it must come before it"):
        ValidationConfig.model_validate({"bounds": {"rows": {"warn": 5, "fail": 4}}})


def test_data_docs_are_built_with_the_severities(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailedError):
        run_validate(tmp_path, ingest_text(tmp_path, GOOD), event_types=["view"])
    docs = tmp_path / "validate" / "data_docs"
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.html")}
    assert {"index.html", "expectations/rows.html", "expectations/night.html"} <= pages
    of_dates = {page.split("/")[2] for page in pages if page.startswith("validations/rows/")}
    assert of_dates == {"2026-01-01-to-2026-01-02"}
    assert "event_type" in (docs / "expectations" / "rows.html").read_text(encoding="utf-8")


def test_an_own_expectation_shows_everywhere_and_decides(tmp_path: Path) -> None:
    ingested = ingest_text(tmp_path, GOOD)
    own: dict[str, Any] = {"type": BETWEEN, "column": "weight", "max_value": 1}
    text = "values must be less than or equal to 1.0"
    with pytest.raises(ValidationFailedError) as caught:
        run_validate(tmp_path, ingested, expectations=[own])
    sentence = f"**weight** {text}; 1 is not, for example 2 (interactions/a.csv row 2)"
    assert sentence in str(caught.value)
    out = tmp_path / "validate"
    assert sentence in (out / "validation.md").read_text()
    assert text in (out / "validation.html").read_text()
    assert text in (out / "data_docs" / "expectations" / "rows.html").read_text(encoding="utf-8")
    (failed,) = (one for one in written_report(tmp_path)["expectations"] if not one["success"])
    assert (failed["column"], failed["expectation"], failed["unexpected"]) == ("weight", text, 1)
    assert (
        run_validate(tmp_path, ingested, expectations=[{**own, "severity": "warn"}])["n_warned"]
        == 1
    )
