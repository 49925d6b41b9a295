"""Great Expectations, and the only place where it is imported: rules and rows in, results out.

Import this module inside functions: Great Expectations takes seconds to load.
"""

import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from tasks.validation.findings import SAMPLE_SIZE, Result
from tasks.validation.rules import Between, Exists, OneOf, Present, Rule

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read while it loads
with warnings.catch_warnings():
    # It uses modules of the standard library and of pandas that are on their way out.
    warnings.simplefilter("ignore")
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.core.expect_column_to_exist import ExpectColumnToExist
    from great_expectations.expectations.core.expect_column_values_to_be_between import (
        ExpectColumnValuesToBeBetween,
    )
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
        ExpectColumnValuesToBeInSet,
    )
    from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
        ExpectColumnValuesToNotBeNull,
    )
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.metadata_types import FailureSeverity

# It announces a temporary folder for each examination.
logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)

_SITE = "local_site"
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Data Docs sort by time; a run is known by its name, and the same rows give the same pages."""

_RESULT_FORMAT: Any = {"result_format": "SUMMARY", "partial_unexpected_count": SAMPLE_SIZE}
_SEVERITIES = {"fail": FailureSeverity.CRITICAL, "warn": FailureSeverity.WARNING}


class Examiner:
    """One context of Great Expectations, in which suites are made once and used again and again.

    Args:
        docs: Folder for Data Docs; what it holds is removed.
    """

    def __init__(self, docs: Path) -> None:
        shutil.rmtree(docs, ignore_errors=True)
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._context.update_data_docs_site(
            _SITE,
            {
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs.resolve()),
                },
            },
        )
        self._source = self._context.data_sources.add_pandas("lake")

    def suite(self, name: str, rules: Sequence[Rule]) -> "Suite":
        """Make a suite of rules.

        Args:
            name: Unique within this examiner.
            rules: What is expected.
        """
        expectations = [_expectation(rule) for rule in rules]
        for number, expectation in enumerate(expectations):
            expectation.meta = {"number": number}
        asset = self._source.add_dataframe_asset(name)
        definition = gx.ValidationDefinition(
            name=name,
            data=asset.add_batch_definition_whole_dataframe("rows"),
            suite=self._context.suites.add(
                gx.ExpectationSuite(name=name, expectations=expectations)
            ),
        )
        return Suite(rules, self._context.validation_definitions.add(definition))

    def build_docs(self) -> None:
        """Write Data Docs: a page for each examination since this examiner was made."""
        self._context.build_data_docs()


class Suite:
    """Rules as a suite of Great Expectations; made by `Examiner.suite`."""

    def __init__(self, rules: Sequence[Rule], definition: gx.ValidationDefinition) -> None:
        self.rules = list(rules)
        self._definition = definition

    def examine(self, rows: pl.DataFrame, run_name: str) -> list[Result]:
        """Hold rows against the rules.

        Args:
            rows: What to examine.
            run_name: Names the examination in Data Docs; unique within the suite.

        Returns:
            A result a rule. One on a column that is not there is no success and has no figures.
        """
        outcome = self._definition.run(
            batch_parameters={"dataframe": _to_pandas(rows, self.rules)},
            result_format=_RESULT_FORMAT,
            run_id=RunIdentifier(run_name=run_name, run_time=_NO_TIME),
        )
        results = sorted(outcome.results, key=_number)
        assert len(results) == len(self.rules), "every rule has a result"
        return [_result(result) for result in results]


def _expectation(rule: Rule) -> Expectation:
    about: dict[str, Any] = {"column": rule.column, "severity": _SEVERITIES[rule.severity]}
    match rule.check:
        case Exists():
            return ExpectColumnToExist(**about)
        case Present():
            return ExpectColumnValuesToNotBeNull(**about)
        case OneOf(values):
            return ExpectColumnValuesToBeInSet(**about, value_set=list(values))
        case Between(minimum, maximum, below):
            return ExpectColumnValuesToBeBetween(
                **about, min_value=minimum, max_value=maximum, strict_max=below
            )


def _to_pandas(rows: pl.DataFrame, rules: Sequence[Rule]) -> Any:
    """The columns that rules are about, each with no more than they need.

    A column that must only be present becomes 1 or missing: Great Expectations makes a fingerprint
    of all it is given, which takes ten times as long as the examination where it is given ids.
    Numbers and times go as NumPy arrays, which alone are compared as whole columns.
    """
    wanted: dict[str, pl.Expr] = {}
    for name in dict.fromkeys(rule.column for rule in rules if rule.column in rows.columns):
        column, dtype = pl.col(name), rows.schema[name]
        if all(isinstance(rule.check, Present) for rule in rules if rule.column == name):
            wanted[name] = pl.when(column.is_not_null()).then(1.0)
        else:
            wanted[name] = column.cast(pl.Float64) if dtype.is_float() else column
    table = rows.select(**wanted)
    frame = table.to_pandas(use_pyarrow_extension_array=True)
    for column in table.iter_columns():
        if column.dtype.is_numeric() or isinstance(column.dtype, pl.Datetime):
            frame[column.name] = column.to_pandas()
    return frame


def _number(outcome: Any) -> int:
    return outcome.expectation_config.meta["number"]


def _result(outcome: Any) -> Result:
    result = outcome.result or {}
    return Result(
        success=bool(outcome.success),
        unexpected=result.get("unexpected_count"),
        sample=list(result.get("partial_unexpected_list") or [])[:SAMPLE_SIZE],
        rows=[int(at) for at in result.get("partial_unexpected_index_list") or []][:SAMPLE_SIZE],
    )
