"""Great Expectations behind one module: a user's own expectations, results, telemetry."""

import os
import subprocess
import sys
from typing import Any

import polars as pl
import pytest

from tasks.validation.findings import Finding
from tasks.validation.rules import OwnExpectation

ROWS = pl.DataFrame(
    {
        "user_id": ["u", "v", "w"],
        "item_id": ["u", "x", "y"],
        "weight": pl.Series([1.0, -2.0, 4.0], dtype=pl.Float32),
    }
)


def _own(**settings: Any) -> OwnExpectation:
    return OwnExpectation.model_validate(settings)


def _check(*batches: pl.DataFrame, **settings: Any) -> Finding:
    from tasks.validation.great_expectations import GxRunner, own_rules

    suite = GxRunner().suite("rows", own_rules([_own(**settings)]))
    for number, batch in enumerate(batches, start=1):
        suite.run(batch, f"day {number}", lambda _, rows: [f"row {row}" for row in rows])
    (finding,) = suite.findings
    return finding


def test_values_that_break_it_are_counted_over_all_batches_and_named_with_their_rows() -> None:
    weights = {"type": "expect_column_values_to_be_between", "column": "weight", "min_value": 0}

    found = _check(ROWS, ROWS, severity="warn", **weights)

    assert (found.outcome, found.unexpected) == ("warned", 2)
    assert found.in_words() == (
        "- **weight** values must be greater than or equal to 0.0; 2 are not, for example "
        "-2 (row 1), -2 (row 1). Correct the file, or change validation.expectations."
    )


def test_an_aggregate_is_that_of_each_batch() -> None:
    mean = {"type": "expect_column_mean_to_be_between", "column": "weight", "min_value": 1.5}

    found = _check(
        ROWS, ROWS.tail(1), notes="Ask the shop.", description="is 1.5 on average", **mean
    )

    assert found.in_words() == (
        "- **weight** is 1.5 on average; 1 is not, for example 1 (day 1). Ask the shop."
    )


def test_pairs_of_columns_and_the_whole_table() -> None:
    columns = {"column_A": "user_id", "column_B": "item_id"}
    pair = _check(ROWS.head(1), type="expect_column_pair_values_to_be_equal", **columns)
    table = _check(ROWS, type="expect_table_row_count_to_be_between", min_value=4)

    assert (pair.outcome, pair.rule.column) == ("passed", "user_id, item_id")
    assert (table.outcome, table.rule.column, table.sample) == ("failed", "interactions", ["3"])


def test_what_can_not_be_checked_on_the_night_is_not_passed() -> None:
    regex = {"type": "expect_column_values_to_match_regex", "column": "user_id", "regex": "^u"}

    found = _check(ROWS.drop("user_id"), **regex)

    assert found.outcome == "failed"
    assert found.sample[0].startswith("not checked: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"type": "expect_column_value_to_be_between"},
            "no such type. It has: .*expect_column_values_to_be_between",
        ),
        (
            {"type": "expect_column_values_to_be_unique", "columns": "user_id"},
            "column: field required; columns: extra fields not permitted",
        ),
        (
            {"type": "expect_column_values_to_be_unique", "column": "price"},
            'column "price" in BatchData does not exist.*The columns are user_id, item_id, ',
        ),
        (
            {"type": "expect_column_values_to_match_regex", "column": "user_id", "regex": "("},
            r"expectation 1 \(expect_column_values_to_match_regex\): it can't be checked: ",
        ),
        (
            {
                "type": "expect_column_values_to_not_be_null",
                "column": "user_id",
                "description": "has no missing values",
            },
            'a rule "user_id has no missing values" already',
        ),
    ],
    ids=["type", "arguments", "column", "value", "name"],
)
def test_a_wrong_expectation_is_refused_with_what_is_wrong(
    settings: dict[str, Any], message: str
) -> None:
    from tasks.validation.great_expectations import own_rules

    with pytest.raises(ValueError, match=message):
        own_rules([_own(**settings)])


@pytest.mark.parametrize(("said", "read"), [(None, "false"), ("true", "true")])
def test_telemetry_is_off_unless_the_environment_says_otherwise(
    said: str | None, read: str
) -> None:
    program = (
        "import tasks.validation.great_expectations, os; print(os.environ['GX_ANALYTICS_ENABLED'])"
    )
    environment = {**os.environ, "GX_ANALYTICS_ENABLED": said or ""}
    if said is None:
        del environment["GX_ANALYTICS_ENABLED"]

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == read
