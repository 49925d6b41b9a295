"""Validate: what ingest brought, held against the schema and the limits; fails the night closed."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from pydantic import Field

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.data.cleaning import ARRIVAL_BITS
from recsys_core.data.lake import Lake
from recsys_core.data.records import mark_validated
from recsys_core.data.schema import AFTER_RUN_DATE, INTERACTIONS
from recsys_core.settings import Settings
from tasks.stage import StageRun, Summary, stage

if TYPE_CHECKING:
    from tasks.expectations import Finding, Rule


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


class ValidationFailed(ValueError):  # noqa: N818 - it reports a verdict, not an accident
    """The new rows are not fit to train on; the message says why and what to do."""


@stage
def validate(run: StageRun, config: ValidationConfig, *, ingested: Artifact) -> Summary:
    """Examine the rows that no night has validated yet; on success they are marked as validated.

    Writes validation.json (all findings) and validation.md (a summary to read), also on failure.

    Raises:
        ValidationFailed: An expectation does not hold.
    """
    facts = read_json(ingested.file("ingest.json"))
    files = [file for file in facts["files"] if file["new"]]
    lake = Lake(run.night.lake)
    rows = _new_rows(lake, facts, files)
    findings = _findings(rows, facts, files, config) if files else []
    failed = [finding for finding in findings if not finding.success]
    summary = _summary(rows, files, findings)
    write_json(
        run.out / "validation.json",
        {
            "n_rows": rows.height,
            "success": not failed,
            "expectations": [_reported(finding) for finding in findings],
        },
    )
    (run.out / "validation.md").write_text(summary, encoding="utf-8")
    if TaskRunContext.get() is not None:
        create_markdown_artifact(summary, key="validation", description="What is new, examined")
    if failed:
        raise ValidationFailed(summary)
    mark_validated(lake, {file["source"]: file["fingerprint"] for file in files})
    return {"n_rows": rows.height, "n_expectations": len(findings), "n_failed": len(failed)}


def _new_rows(
    lake: Lake, facts: Mapping[str, Any], files: Iterable[Mapping[str, Any]]
) -> pl.DataFrame:
    """The rows of the new files, in a stable order, from their dates' partitions alone."""
    table = lake.scan(INTERACTIONS.name, facts["versions"][INTERACTIONS.name])
    if table.collect_schema() != INTERACTIONS.schema:
        return pl.DataFrame(schema=table.collect_schema())
    dates = [date.fromisoformat(day) for day in facts["new_dates"]]
    names = [file["source"] for file in files]
    new = table.filter(pl.col("date").is_in(dates), pl.col("source").is_in(names))
    return new.collect().sort("arrival")


def _findings(
    rows: pl.DataFrame,
    facts: Mapping[str, Any],
    files: Iterable[Mapping[str, Any]],
    config: ValidationConfig,
) -> "list[Finding]":
    """All findings; where the table itself is wrong, only those on its columns."""
    from tasks.expectations import check_facts, check_rows, check_types

    types = check_types(rows.schema, INTERACTIONS)
    if not all(finding.success for finding in types):
        return types
    events = [file for file in files if file["source"].startswith("interactions/")]
    counted = {
        "repeated rows": rows.height - rows.select(INTERACTIONS.key).unique().height,
        "quarantined share": _quarantined_share(files),
    }
    if events:  # a night may bring a new catalogue and no events
        counted["rows"] = rows.height + sum(file["rows_duplicate"] for file in events)
    until = datetime.fromisoformat(facts["available_until"])
    limits = [limit for limit in _limits(facts, config) if limit.column in counted]
    return [
        *types,
        *check_facts(counted, limits),
        *check_rows(rows, INTERACTIONS, until=until, event_types=config.event_types),
    ]


def _limits(facts: Mapping[str, Any], config: ValidationConfig) -> "list[Rule]":
    """The rules for figures that are computed here."""
    from tasks.expectations import between

    share = facts["max_quarantined_share"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["reasons"].items())
    most = "" if config.max_rows is None else f" and at most {config.max_rows}"
    return [
        between(
            "rows",
            f"are at least {config.min_rows}{most}",
            "Check that the export is whole, or change validation.min_rows or max_rows.",
            minimum=config.min_rows,
            maximum=config.max_rows,
        ),
        between(
            "repeated rows",
            "are none",
            "Rows went around the ingest; restore the lake, or ingest into an empty one.",
            maximum=0,
        ),
        between(
            "quarantined share",
            f"is at most {share}",
            f"Correct the files (refused: {reasons or 'nothing'}; the lake's table `quarantine` "
            "says which rows), or raise source.max_quarantined_share.",
            maximum=share,
        ),
    ]


def _quarantined_share(files: Iterable[Mapping[str, Any]]) -> float:
    """Share of bad rows in the new files; rows that are only early are neither good nor bad."""
    refused = judged = 0
    for file in files:
        early = file["reasons"].get(AFTER_RUN_DATE, 0)
        refused += file["rows_quarantined"] - early
        judged += file["rows_in"] - early
    return refused / judged if judged else 0.0


def _reported(finding: "Finding") -> dict[str, Any]:
    """A finding as it is stored: without positions, which mean nothing elsewhere."""
    return {name: value for name, value in asdict(finding).items() if name != "rows"}


def _summary(
    rows: pl.DataFrame, files: Iterable[Mapping[str, Any]], findings: "Iterable[Finding]"
) -> str:
    """The findings in words, as Markdown."""
    files, findings = list(files), list(findings)
    if not files:
        return "# Validation passed\n\nNothing is new: zero rows to examine.\n"
    failed = [finding for finding in findings if not finding.success]
    verdict = "failed: nothing is trained on this" if failed else "passed"
    lines = [
        f"# Validation {verdict}",
        "",
        f"{rows.height} new rows, {len(findings)} expectations, {len(failed)} not met.",
        "",
        *(_in_words(finding, rows) for finding in failed),
        *([""] if failed else []),
        "| new file | rows | kept | quarantined | duplicate | reasons |",
        "|---|---|---|---|---|---|",
        *(_file_line(file) for file in files),
    ]
    return "\n".join(lines) + "\n"


def _in_words(finding: "Finding", rows: pl.DataFrame) -> str:
    expected = f"- **{finding.column}** {finding.expectation}"
    places = _places(finding, rows)
    if places:
        sample = ", ".join(
            f"{value} ({place})" for value, place in zip(finding.sample, places, strict=True)
        )
        return f"{expected}; {finding.unexpected} are not, for example {sample}. {finding.remedy}"
    found = ", ".join(finding.sample) or "nothing to examine"
    return f"{expected}; found: {found}. {finding.remedy}"


def _places(finding: "Finding", rows: pl.DataFrame) -> list[str]:
    """Source and row of a finding's sample, where they are rows of the table."""
    if finding.column not in rows.columns or max(finding.rows, default=0) >= rows.height:
        return []
    mask = (1 << ARRIVAL_BITS) - 1
    chosen = rows[finding.rows].select("source", pl.col("arrival") & mask)
    return [f"{source} row {row}" for source, row in chosen.iter_rows()]


def _file_line(file: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in file["reasons"].items()) or "-"
    counts = " | ".join(
        str(file[f"rows_{part}"]) for part in ("in", "kept", "quarantined", "duplicate")
    )
    return f"| {file['source']} | {counts} | {reasons} |"
