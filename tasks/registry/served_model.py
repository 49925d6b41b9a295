"""The registered model: an MLflow pyfunc around the scorer.

Registration copies this file with the scorer's source in place of its import. So every version
holds the code that it was tested with and needs nothing but its requirements.
"""

import os
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from recsys_core.serving.scorer import Scorer

THREADS_VARIABLE = "RECDISTILL_SCORER_THREADS"
"""Environment variable: threads of one computation; 0, the default, lets ONNX Runtime decide."""


class ServedModel(PythonModel):
    """Recommends items after the column `history`; `exclude` and `allow` are optional."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the graph."""
        threads = int(os.environ.get(THREADS_VARIABLE, "0"))
        self.scorer = Scorer(context.artifacts["model"], intra_op_num_threads=threads)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow's returns nothing
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One row per input: `item_ids`, `scores` and, if asked for, `contributions`.

        Raises:
            MlflowException: The input is wrong; over HTTP, status 400 with the scorer's sentence.
        """
        params = params or {}
        explain = params.get("explain", False)
        try:
            answers = self.scorer.recommend(
                model_input["history"].tolist(),
                k=params.get("k", 10),
                exclude_seen=params.get("exclude_seen"),
                exclude=_optional_lists(model_input, "exclude"),
                allow=_optional_lists(model_input, "allow"),
                explain=explain,
            )
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        columns: dict[str, list[Any]] = {
            "item_ids": [answer.item_ids for answer in answers],
            "scores": [answer.scores for answer in answers],
        }
        if explain:
            columns["contributions"] = [answer.contributions for answer in answers]
        return pd.DataFrame(columns)


def _optional_lists(table: pd.DataFrame, column: str) -> list[Any] | None:
    """The lists of a column that may be absent, or absent for some rows."""
    if column not in table:
        return None
    return [None if _is_missing(value) else value for value in table[column]]


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


set_model(ServedModel())
