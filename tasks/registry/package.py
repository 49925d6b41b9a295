"""Packaging: the served model's folder as an MLflow model that needs nothing of this project."""

import inspect
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema

import recsys_core.serving.scorer
import tasks.registry.served_model

REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas")
_IMPORT = "from recsys_core.serving.scorer import Scorer\n"


def save_package(package: Path, folder: Path) -> None:
    """Write the MLflow model: code and ONNX, no pickle.

    Args:
        package: The folder to create.
        folder: The served model's files; its name becomes that of the folder in the package.
    """
    scorer = recsys_core.serving.scorer.Scorer(folder)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # MLflow 3.17 compares an example's columns with a range; pandas 3.1 warns about that.
        warnings.filterwarnings("ignore", "Operation with range is deprecated")
        code = Path(scratch) / "served_model.py"
        code.write_text(served_code(), encoding="utf-8")
        mlflow.pyfunc.save_model(
            path=str(package),
            python_model=str(code),
            artifacts={"model": str(folder)},
            signature=signature(exclude_seen=scorer.config["exclude_seen"]),
            input_example=(pd.DataFrame({"history": [scorer.item_ids[:2]]}), {"k": 10}),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )


def served_code() -> str:
    """Source of the served model in one file: the scorer's source replaces its import.

    So each version has its own scorer: two versions in one process don't mix, and no version hides
    or needs an installation of this project.
    """
    model = inspect.getsource(tasks.registry.served_model)
    before, separator, after = model.partition(_IMPORT)
    assert separator, "served_model.py does not import the scorer in the expected way"
    return before + inspect.getsource(recsys_core.serving.scorer) + after


def signature(*, exclude_seen: bool) -> ModelSignature:
    """The registered model's inputs, outputs and parameters.

    Args:
        exclude_seen: Default of the parameter of this name.
    """
    strings = Array(DataType.string)
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(strings, "history"),
                ColSpec(strings, "exclude", required=False),
                ColSpec(strings, "allow", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(strings, "item_ids"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(Array(Map(DataType.double)), "contributions", required=False),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("k", DataType.long, 10),
                ParamSpec("exclude_seen", DataType.boolean, exclude_seen),
                ParamSpec("explain", DataType.boolean, False),
            ]
        ),
    )
