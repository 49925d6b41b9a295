"""Validate: check what ingest brought against the rules; a broken rule stops the night."""

from collections.abc import Sequence
from datetime import date
from typing import Self

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from pydantic import Field, model_validator

from recsys_core.artifacts import Artifact
from recsys_core.data.drift.partitions import PIECE_ROWS
from recsys_core.data.drift.trailing import FEWEST_DAYS
from recsys_core.data.lake.ingest_log import mark_validated
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS
from recsys_core.settings import Settings
from tasks.contracts.ingest import FileResult, IngestResult
from tasks.contracts.validation import Severity, ValidationReport
from tasks.engine.stage import StageRun, Summary, stage
from tasks.validation.findings import with_outcome
from tasks.validation.new_rows import NewRows, RuleSet, ValidationResult
from tasks.validation.page import day_results, summary_of, validation_page
from tasks.validation.rules import (
    EVENT_MIX,
    NEW_ITEMS,
    ROWS,
    SHIFT,
    USERS,
    OwnExpectation,
    day_rules,
    names_of_rules,
    night_rules,
    row_rules,
    with_severity,
)

DATA_DOCS = "data_docs"


class Bound(Settings):
    """From where on a figure of a day warns, and from where on it stops the night."""

    warn: float = Field(gt=0, description="Beyond this the night warns.")
    fail: float = Field(gt=0, description="Beyond this nothing is trained.")

    @model_validator(mode="after")
    def _warn_first(self) -> Self:
        if self.warn > self.fail:
            msg = f"warn is {self.warn}, beyond fail = {self.fail}; it must come before it"
            raise ValueError(msg)
        return self


class Bounds(Settings):
    """How far a day may be from the trailing days."""

    rows: Bound = Field(
        default=Bound(warn=2, fail=4),
        description="Rows, as a factor: 4 allows from a quarter to four times the usual.",
    )
    users: Bound = Field(default=Bound(warn=2, fail=4), description="Users, as a factor.")
    new_item_share: Bound = Field(
        default=Bound(warn=0.2, fail=0.5),
        description="Share of rows with items that no trailing day has, above the usual (0 to 1).",
    )
    event_mix: Bound = Field(
        default=Bound(warn=0.15, fail=0.4),
        description="Largest change of an event kind's share of rows, above the usual (0 to 1).",
    )
    popularity_shift: Bound = Field(
        default=Bound(warn=0.2, fail=0.5),
        description="Jensen-Shannon distance of the items' popularity, above the usual (0 to 1). "
        "From 0, a tenth of the rows going to other items makes 0.23, half of them 0.56.",
    )


class ValidationConfig(Settings):
    """What new interactions must be like, beyond the schema."""

    min_rows: int = Field(
        default=1,
        ge=0,
        description="Fewest rows that new event files must bring, repeats included.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        description="Most rows that new event files may bring. Unset: any number.",
    )
    event_types: tuple[str, ...] = Field(
        default=(), description="Kinds of events that may occur. Empty: all may."
    )
    trailing_days: int = Field(
        default=7,
        ge=FEWEST_DAYS,
        le=90,
        description="Days before a new date that it is compared with.",
    )
    bounds: Bounds = Field(
        default=Bounds(), description="How far a new date may be from the trailing days."
    )
    severity: dict[str, Severity] = Field(
        default={},
        description="Severity of rules, by name, where it is not the default: "
        '{"new item share": "warn"}.',
    )

    expectations: tuple[OwnExpectation, ...] = Field(
        default=(),
        description="Your own expectations about new interactions, by their type in Great "
        "Expectations and its arguments, with a severity of fail or warn: "
        '{type = "expect_column_values_to_be_between", column = "weight", min_value = 0, '
        'severity = "warn"}. Each is checked on the new rows of each date, at most '
        f"{PIECE_ROWS:,} at a time: a mean, say, is that of one date.",
    )

    @model_validator(mode="after")
    def _own_expectations(self) -> Self:
        if self.expectations:
            from tasks.validation.great_expectations import own_rules

            own_rules(self.expectations)
        return self

    @model_validator(mode="after")
    def _known_rules(self) -> Self:
        known = names_of_rules(INTERACTIONS)
        if unknown := sorted(set(self.severity) - set(known)):
            msg = f"severity names no rule: {', '.join(unknown)}. There are: {', '.join(known)}"
            raise ValueError(msg)
        return self


class ValidationFailedError(ValueError):
    """The new rows are not fit to train on; the message says why and what to do."""


@stage(
    output="validated",
    version=2,
    libraries=(
        "deltalake",
        "great-expectations",
        "jinja2",
        "matplotlib",
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
    ),
)
def validate(run: StageRun, config: ValidationConfig, *, ingested: Artifact) -> Summary:
    """Check the rows that no night has validated yet; on success they are marked as validated.

    Writes validation.json (all findings), validation.md (a summary), validation.html (the same
    with tables and plots) and, in data_docs, the Data Docs of Great Expectations. All of them are
    also written on failure.

    Raises:
        ValidationFailedError: An expectation of severity "fail" does not hold.
    """
    ingest_result = IngestResult.load(ingested)
    files = ingest_result.new_files
    lake = Lake(run.lake)
    result = _check(run, config, lake, ingest_result) if files else ValidationResult()
    summary = summary_of(result, files)
    _write(run, result, files, summary, run_date=ingest_result.run_date)
    for finding in with_outcome(result.findings, "warned"):
        run.logger.warning("%s", finding.in_words().removeprefix("- "))
    run.logger.info("All findings, with plots: %s", run.out / "validation.html")
    if with_outcome(result.findings, "failed"):
        raise ValidationFailedError(summary)
    mark_validated(lake, {file.source: file.fingerprint for file in files})
    return {
        "n_rows": result.n_rows,
        "n_expectations": len(result.findings),
        **{
            f"n_{outcome}": len(with_outcome(result.findings, outcome))
            for outcome in ("failed", "warned", "skipped")
        },
    }


def _check(
    run: StageRun, config: ValidationConfig, lake: Lake, ingested: IngestResult
) -> ValidationResult:
    from tasks.validation.great_expectations import GxRunner, own_rules

    gx, new = GxRunner(), NewRows(lake, ingested)
    rules = _rules(config, new, ingested)
    rules.rows.extend(own_rules(config.expectations))
    result = new.check(gx, rules, trailing_days=config.trailing_days, progress=run.progress)
    gx.build_docs(run.out / DATA_DOCS)
    return result


def _rules(config: ValidationConfig, new: NewRows, ingested: IngestResult) -> RuleSet:
    bounds = config.bounds
    named = {
        ROWS: bounds.rows,
        USERS: bounds.users,
        NEW_ITEMS: bounds.new_item_share,
        EVENT_MIX: bounds.event_mix,
        SHIFT: bounds.popularity_shift,
    }
    rows = row_rules(INTERACTIONS, until=new.until, event_types=config.event_types)
    night = night_rules(
        min_rows=config.min_rows,
        max_rows=config.max_rows,
        max_quarantined_share=ingested.max_quarantined_share,
        refused=", ".join(f"{count} {reason}" for reason, count in ingested.reasons.items()),
    )
    days = day_rules({name: (bound.warn, bound.fail) for name, bound in named.items()})
    return RuleSet(*(with_severity(rules, config.severity) for rules in (rows, night, days)))


def _write(
    run: StageRun,
    result: ValidationResult,
    files: Sequence[FileResult],
    summary: str,
    *,
    run_date: date,
) -> None:
    ValidationReport(
        n_rows=result.n_rows,
        success=not with_outcome(result.findings, "failed"),
        expectations=tuple(finding.result() for finding in result.findings),
        days=tuple(day_results(result.days)),
    ).save(run.out)
    (run.out / "validation.md").write_text(summary, encoding="utf-8")
    page = validation_page(result, files, run_date=run_date)
    (run.out / "validation.html").write_text(page, encoding="utf-8", newline="\n")
    if TaskRunContext.get() is not None:
        create_markdown_artifact(
            summary, key="validation", description="Validation of the new rows"
        )
