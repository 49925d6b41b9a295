"""Great Expectations, and the only place where it is imported: rules in, findings out.

Import this module inside functions: Great Expectations takes seconds to load.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from recsys_core.data.schema import Column, Table

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read while it loads
with warnings.catch_warnings():
    # It uses modules of the standard library and of pandas that are on their way out.
    warnings.simplefilter("ignore")
    import great_expectations as gx
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

# It announces a temporary folder for each examination.
logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)

SAMPLE_SIZE = 3
_LARGEST_FLOAT32 = 3.4028234e38
_CORRECT = (
    "Correct the file, or remove it: rows of a file that was never valid leave the lake again."
)
_REBUILD = "The lake was written by something else; restore it, or ingest into an empty lake."


@dataclass(frozen=True)
class Rule:
    """An expectation, and what to tell whom it concerns.

    Attributes:
        column: What it is about: a column, or a fact such as "rows".
        text: What is expected, to be read after the column's name.
        remedy: What to do when it is not so.
        expectation: The same for Great Expectations.
    """

    column: str
    text: str
    remedy: str
    expectation: Expectation


@dataclass(frozen=True)
class Finding:
    """Whether a rule holds.

    Attributes:
        column: What the rule is about.
        expectation: What was expected of it.
        success: Whether it is so.
        unexpected: Number of values that are not as expected; None where nothing can be counted.
        sample: Some of them, as text.
        remedy: What to do; empty on success.
        rows: Positions of the sample's rows, where there are any.
    """

    column: str
    expectation: str
    success: bool
    unexpected: int | None
    sample: list[str]
    remedy: str
    rows: list[int]


def check_rows(
    rows: pl.DataFrame, table: Table, *, until: datetime, event_types: Sequence[str]
) -> list[Finding]:
    """Hold rows against the schema from which cleaning is made, too.

    Args:
        rows: New rows of the table.
        table: Its definition.
        until: Timestamps must be before this.
        event_types: Known kinds of events; empty: all are.
    """
    return _examine(rows, [*_table_rules(table, until, event_types)])


def check_facts(facts: Mapping[str, Any], rules: Sequence[Rule]) -> list[Finding]:
    """Hold figures that were computed elsewhere against rules, as a table of one row."""
    return _examine(pl.DataFrame({name: [value] for name, value in facts.items()}), rules)


def check_types(schema: pl.Schema, table: Table) -> list[Finding]:
    """Hold the columns that a table really has against its definition."""
    rules: list[Rule] = []
    for column in table.columns:
        name, dtype = column.name, str(column.dtype)
        expected = ExpectColumnValuesToBeInSet(column=name, value_set=[dtype])
        rules.append(Rule(name, "exists", _REBUILD, ExpectColumnToExist(column=name)))
        rules.append(Rule(name, f"is of type {dtype}", _REBUILD, expected))
    return check_facts({name: str(dtype) for name, dtype in schema.items()}, rules)


def between(
    column: str,
    text: str,
    remedy: str,
    *,
    minimum: Any = None,
    maximum: Any = None,
    below: bool = False,
) -> Rule:
    """A rule that bounds values; `below` excludes the maximum itself."""
    return Rule(
        column,
        text,
        remedy,
        ExpectColumnValuesToBeBetween(
            column=column, min_value=minimum, max_value=maximum, strict_max=below
        ),
    )


def _table_rules(table: Table, until: datetime, event_types: Sequence[str]) -> Iterator[Rule]:
    for column in table.columns:
        name = column.name
        if column.required:
            expectation = ExpectColumnValuesToNotBeNull(column=name)
            yield Rule(name, "has no missing values", _CORRECT, expectation)
        yield from _range_rules(column, until)
    if event_types:
        yield Rule(
            "event_type",
            f"is one of {', '.join(event_types)}",
            "Correct the file, or add the kind to validation.event_types.",
            ExpectColumnValuesToBeInSet(column="event_type", value_set=list(event_types)),
        )


def _range_rules(column: Column, until: datetime) -> Iterator[Rule]:
    name, low, high = column.name, column.minimum, column.maximum
    if name == "timestamp":
        high = until
    if column.finite:
        yield between(
            name, "is finite", _CORRECT, minimum=-_LARGEST_FLOAT32, maximum=_LARGEST_FLOAT32
        )
    if low is not None:
        yield between(name, f"is at least {_shown(low)}", _CORRECT, minimum=low)
    if high is not None:
        yield between(name, f"is before {_shown(high)}", _CORRECT, maximum=high, below=True)


def _examine(rows: pl.DataFrame, rules: Sequence[Rule]) -> list[Finding]:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("pandas")
        .add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": _to_pandas(rows)})
    )
    for number, rule in enumerate(rules):
        rule.expectation.meta = {"number": number}
    suite = gx.ExpectationSuite(name="rows", expectations=[rule.expectation for rule in rules])
    outcome = batch.validate(suite)
    results = sorted(outcome.results, key=_number)
    assert len(results) == len(rules), "every rule has a result"
    found = [_finding(rule, result) for rule, result in zip(rules, results, strict=True)]
    return [replace(one, remedy="" if one.success else one.remedy) for one in found]


def _to_pandas(rows: pl.DataFrame) -> Any:
    """Text as Arrow; numbers and times as NumPy, which alone are compared as whole columns."""
    frame = rows.to_pandas(use_pyarrow_extension_array=True)
    for column in rows.iter_columns():
        if column.dtype.is_float():
            frame[column.name] = column.cast(pl.Float64).to_pandas()
        elif isinstance(column.dtype, pl.Datetime) or column.dtype.is_integer():
            frame[column.name] = column.to_pandas()
    return frame


def _number(outcome: Any) -> int:
    return outcome.expectation_config.meta["number"]


def _finding(rule: Rule, outcome: Any) -> Finding:
    result = outcome.result or {}
    # A rule on a column that is not there comes back without success and without any figures.
    return Finding(
        column=rule.column,
        expectation=rule.text,
        success=bool(outcome.success),
        unexpected=result.get("unexpected_count"),
        sample=[_shown(value) for value in result.get("partial_unexpected_list", [])][:SAMPLE_SIZE],
        remedy=rule.remedy,
        rows=[int(at) for at in result.get("partial_unexpected_index_list") or []][:SAMPLE_SIZE],
    )


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
