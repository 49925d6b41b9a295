"""Great Expectations, imported in this module only: rules and rows in, findings out.

Import this module inside functions: Great Expectations takes seconds to load.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path
from string import Template
from textwrap import shorten
from typing import Any

import polars as pl
from pydantic.v1 import PrivateAttr, ValidationError  # Great Expectations uses it

from recsys_core.data.schema import INTERACTIONS
from tasks.telemetry import switch_off_telemetry
from tasks.validation.findings import SAMPLE_SIZE, Finding, shown
from tasks.validation.rules import NOT_NULL, OwnExpectation, Rule, names_of_rules

switch_off_telemetry()  # Great Expectations reads the variables while it loads
with warnings.catch_warnings():
    # It uses deprecated modules of the standard library and of pandas.
    warnings.simplefilter("ignore")
    import great_expectations as gx
    from great_expectations.checkpoint.actions import ValidationAction
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.metadata_types import FailureSeverity
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

# It logs a temporary folder for each batch.
logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)

_SITE = "local_site"
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Data Docs sort by time; a run is known by its name, and the same rows give the same pages."""

_RESULT_FORMAT: Any = {"result_format": "SUMMARY", "partial_unexpected_count": SAMPLE_SIZE}
_SEVERITIES = {"fail": FailureSeverity.CRITICAL, "warn": FailureSeverity.WARNING}
_LONGEST = 200

_OWN_REMEDY = "Correct the file, or change validation.expectations."

Places = Callable[[str, Sequence[int]], list[str]]
"""Maps a rule's column and positions in a batch to text that helps a user find these rows."""


class RecordFindings(ValidationAction):
    """An action of a checkpoint: hands the results of a run to `record`, rule by rule."""

    type: str = "record_findings"
    _record: Callable[[Any], None] = PrivateAttr()

    def run(self, checkpoint_result: Any, action_context: Any = None) -> dict[str, Any]:
        """Called by the checkpoint after each run."""
        for suite_result in checkpoint_result.run_results.values():
            for result in suite_result.results:
                self._record(result)
        return {}


class GxRunner:
    """One context of Great Expectations: a checkpoint for each suite, and Data Docs of all runs."""

    def __init__(self) -> None:
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._source = self._context.data_sources.add_pandas("lake")

    def suite(self, name: str, rules: Sequence[Rule]) -> "Suite":
        """Make a suite of rules and the checkpoint that runs it.

        Args:
            name: Unique within this runner.
            rules: The rules.
        """
        asset = self._source.add_dataframe_asset(name)
        suite = gx.ExpectationSuite(name=name, expectations=[_expectation(one) for one in rules])
        definition = gx.ValidationDefinition(
            name=name,
            data=asset.add_batch_definition_whole_dataframe("rows"),
            suite=self._context.suites.add(suite),
        )
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[self._context.validation_definitions.add(definition)],
            actions=[RecordFindings(name="findings")],
            result_format=_RESULT_FORMAT,
        )
        return Suite(rules, self._context.checkpoints.add(checkpoint))

    def build_docs(self, folder: Path) -> None:
        """Write Data Docs: a page for each suite and for each of its runs.

        This is no action of the checkpoints because `UpdateDataDocsAction` lists all earlier runs
        after each run: the time for a first load would grow with the square of its dates.

        Args:
            folder: Folder of the pages; its content is replaced.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self._context.update_data_docs_site(
            _SITE,
            {
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(folder.resolve()),
                },
            },
        )
        self._context.build_data_docs()


class Suite:
    """Rules as a suite of Great Expectations with its checkpoint; made by `GxRunner.suite`.

    Attributes:
        findings: One finding per rule, in the order of the rules; each run adds to them.
        errors: Messages of Great Expectations about rules that could not be checked.
    """

    def __init__(self, rules: Sequence[Rule], checkpoint: gx.Checkpoint) -> None:
        self.findings = [Finding(rule) for rule in rules]
        self._findings = {finding.rule.name: finding for finding in self.findings}
        self.errors: list[str] = []
        self._checkpoint = checkpoint
        self._run_name = ""
        self._places: Places | None = None
        for action in checkpoint.actions:
            if isinstance(action, RecordFindings):
                action._record = self._record

    def run(self, rows: pl.DataFrame, run_name: str, places: Places | None = None) -> None:
        """Check a batch and add the results to the findings.

        Args:
            rows: The batch.
            run_name: Name of the batch in Data Docs; unique within the suite.
            places: Gives the places of rows; None for a table of one row that holds figures.
        """
        self._run_name, self._places = run_name, places
        rules = [finding.rule for finding in self.findings]
        self._checkpoint.run(
            batch_parameters={"dataframe": _to_pandas(rows, rules)},
            run_id=RunIdentifier(run_name=run_name, run_time=_NO_TIME),
        )

    def _record(self, result: Any) -> None:
        finding = self._findings[result.expectation_config.meta["rule"]]
        facts, holds = result.result or {}, bool(result.success)
        unexpected = facts.get("unexpected_count")
        sample = list(facts.get("partial_unexpected_list") or [])[:SAMPLE_SIZE]
        places: list[str] = []
        if error := _error(result):
            self.errors.append(error)
        if self._places is not None and unexpected is None:
            # An aggregate of the batch, or an error: the place is the whole batch.
            observed = f"not checked: {error}" if error else shown(facts.get("observed_value"))
            sample = [] if holds else [shorten(observed, _LONGEST)]
            unexpected, places = len(sample), [self._run_name] * len(sample)
        elif self._places is not None:
            rows = list(facts.get("partial_unexpected_index_list") or [])[: len(sample)]
            known = len(rows) == len(sample)
            column = finding.rule.column
            places = self._places(column, rows) if known else [self._run_name] * len(sample)
        finding.add(holds, unexpected, sample, places)


def own_rules(expectations: Iterable[OwnExpectation]) -> list[Rule]:
    """A user's own expectations as rules; each is tried on a few sample interactions.

    Raises:
        ValueError: One has an unknown type or wrong arguments, names an unknown column, can't be
            checked on a data frame, or repeats another rule.
    """
    rules: list[Rule] = []
    for number, settings in enumerate(expectations, start=1):
        taken = {*names_of_rules(INTERACTIONS), *(rule.name for rule in rules)}
        try:
            rules.append(_own_rule(settings, taken))
        except ValueError as error:
            msg = f"expectation {number} ({settings.type}): {error}"
            raise ValueError(msg) from None
    return rules


def _own_rule(settings: OwnExpectation, taken: Collection[str]) -> Rule:
    if settings.type not in (known := list_registered_expectation_implementations()):
        similar = get_close_matches(settings.type, known) or sorted(known)
        msg = f"Great Expectations has no such type. It has: {', '.join(similar)}"
        raise ValueError(msg)
    arguments = dict(settings.model_extra or {})
    text = arguments.pop("description", "")
    remedy = arguments.pop("notes", _OWN_REMEDY)
    rule = Rule("trial", text, remedy, settings.type, arguments, settings.severity)
    try:
        text = text or _worded(_expectation(rule))
    except ValidationError as error:
        details = (
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ValueError("; ".join(details)) from None
    trial = GxRunner().suite("trial", [rule])
    trial.run(_sample_rows(), "trial", lambda _, rows: [""] * len(rows))
    if trial.errors:
        columns = ", ".join(INTERACTIONS.schema)
        msg = f"it can't be checked: {trial.errors[0]} (The columns are {columns}.)"
        raise ValueError(msg)
    rule = replace(rule, name=f"{rule.column} {text}", text=text)
    if rule.name in taken:
        msg = f'there is a rule "{rule.name}" already; give this one another description'
        raise ValueError(msg)
    return rule


def _worded(expectation: Expectation) -> str:
    """Great Expectations' own description of an expectation, without the column's name."""
    expectation.render()
    for content in expectation.rendered_content or []:
        facts: Any = content.value.to_json_dict()
        values = {name: param["value"] for name, param in facts["params"].items()} | {"column": ""}
        return Template(facts["template"]).safe_substitute(values).strip().rstrip(".")
    return expectation.expectation_type


def _sample_rows() -> pl.DataFrame:
    def value(dtype: pl.DataType, number: int) -> Any:
        if dtype == pl.String:
            return f"{number}"
        if isinstance(dtype, pl.Datetime):
            return datetime(2026, 1, number, tzinfo=UTC)
        return date(2026, 1, number) if dtype == pl.Date else number

    columns = {
        name: [value(dtype, number) for number in (1, 2, 3)]
        for name, dtype in INTERACTIONS.schema.items()
    }
    return pl.DataFrame(columns, schema=INTERACTIONS.schema)


def _expectation(rule: Rule) -> Expectation:
    return get_expectation_impl(rule.type)(
        **rule.arguments,
        severity=_SEVERITIES[rule.severity],
        description=f"{rule.column} {rule.text}" if rule.text else None,
        notes=rule.remedy,
        meta={"rule": rule.name},
    )


def _to_pandas(rows: pl.DataFrame, rules: Sequence[Rule]) -> Any:
    """The columns that the rules check, reduced to the values that the checks need.

    A column that is only checked for missing values becomes 1 or missing: Great Expectations
    fingerprints all values, which for ids takes ten times as long as the check. Numbers and times
    become NumPy arrays, because only these are compared column by column.
    """
    read: dict[str, bool] = {}
    for rule in rules:
        whole_table = not rule.columns or rule.arguments.get("row_condition")
        for name in rows.columns if whole_table else rule.columns:
            read[name] = read.get(name, False) or whole_table or rule.type != NOT_NULL
    wanted: dict[str, pl.Expr] = {}
    for name in (name for name in read if name in rows.columns):
        column, dtype = pl.col(name), rows.schema[name]
        if read[name]:
            wanted[name] = column.cast(pl.Float64) if dtype.is_float() else column
        else:
            wanted[name] = pl.when(column.is_not_null()).then(1.0)
    table = rows.select(**wanted)
    frame = table.to_pandas(use_pyarrow_extension_array=True)
    for column in table.iter_columns():
        if column.dtype.is_numeric() or isinstance(column.dtype, pl.Datetime):
            frame[column.name] = column.to_pandas()
    return frame


def _error(result: Any) -> str:
    """The error message of a rule's check; empty if there was no error."""
    info: dict[str, Any] = result.exception_info or {}
    errors = [info] if "raised_exception" in info else list(info.values())
    return next((one["exception_message"] for one in errors if one["raised_exception"]), "")
