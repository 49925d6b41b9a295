"""The registered model: an MLflow pyfunc around the scorer.

Registering copies this file with the scorer's source in the place of its import, so that every
version carries the very code that it was tested with and needs nothing but its requirements.
"""

import os
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from recsys_core.serving.scorer import Scorer

THREADS_VARIABLE = "RECDISTILL_SCORER_THREADS"
"""Environment variable: threads of one computation; 0, the default, lets ONNX Runtime decide."""


class ServedModel(PythonModel):
    """Columns `history` (and optionally `exclude`, `allow`) in, recommendations out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the graph."""
        threads = int(os.environ.get(THREADS_VARIABLE, "0"))
        self.scorer = Scorer(context.artifacts["model"], intra_op_num_threads=threads)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One row per input: `item_ids`, `scores` and, if asked for, `contributions`."""
        explain = bool((params or {}).get("explain", False))
        answers = self.scorer.recommend(
            model_input["history"].tolist(),
            k=(params or {}).get("k", 10),
            exclude_seen=(params or {}).get("exclude_seen", True),
            exclude=_optional_lists(model_input, "exclude"),
            allow=_optional_lists(model_input, "allow"),
            explain=explain,
        )
        columns = {
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


mlflow.models.set_model(ServedModel())
