import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model

from recsys_core.serving.scorer import Scorer
from tasks.registry.package import save_package, served_code

HISTORIES = [["i3", "i17", "i9"], [], ["unknown"], ["i1"]]


@pytest.fixture(scope="module")
def package(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "student"
    save_package(path, served_folder)
    return path


@pytest.fixture(scope="module")
def model(package: Path) -> PyFuncModel:
    return load_model(str(package))


@pytest.fixture(scope="module")
def scorer(served_folder: Path) -> Scorer:
    return Scorer(served_folder)


def test_it_answers_as_the_scorer(model: PyFuncModel, scorer: Scorer) -> None:
    found = model.predict(pd.DataFrame({"history": HISTORIES}), params={"k": 4})
    assert list(found.columns) == ["item_ids", "scores"]
    for row, expected in enumerate(scorer.recommend(HISTORIES, k=4)):
        assert found["item_ids"][row] == expected.item_ids
        assert found["scores"][row] == pytest.approx(expected.scores)


def test_defaults_and_parameters(model: PyFuncModel, scorer: Scorer) -> None:
    history = pd.DataFrame({"history": HISTORIES[:1]})
    assert len(model.predict(history)["item_ids"][0]) == 10
    everything = model.predict(history, params={"k": 99})
    assert set(everything["item_ids"][0]) == set(scorer.item_ids) - set(HISTORIES[0])
    explained = model.predict(history, params={"k": 2, "explain": True})
    (expected,) = scorer.recommend(HISTORIES[:1], k=2, explain=True)
    assert expected.contributions is not None
    for found, contributions in zip(
        explained["contributions"][0], expected.contributions, strict=True
    ):
        assert found == pytest.approx(contributions)


def test_optional_columns_may_miss_in_single_rows(model: PyFuncModel, scorer: Scorer) -> None:
    table = pd.DataFrame(
        {
            "history": HISTORIES[:3],
            "exclude": [None, ["i40"], []],
            "allow": [["i5", "i6"], None, np.array(["i7", "?"], dtype=object)],
        }
    )
    found = model.predict(table, params={"k": 3})["item_ids"].tolist()
    expected = scorer.recommend(
        HISTORIES[:3],
        k=3,
        exclude=[None, ["i40"], []],
        allow=[["i5", "i6"], None, ["i7", "?"]],
    )
    assert found == [answer.item_ids for answer in expected]
    assert found[1] == ["i39", "i38", "i37"]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"history": ["i1"]}),
        pd.DataFrame({"history": [[1, 2]]}),
        pd.DataFrame({"histories": [["i1"]]}),
    ],
)
def test_wrong_input_is_refused(model: PyFuncModel, table: pd.DataFrame) -> None:
    with pytest.raises(MlflowException, match=r"history|Failed to"):
        model.predict(table)


def test_the_package_is_code_and_onnx_without_pickle(package: Path) -> None:
    names = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert {"served_model.py", "artifacts/" + _folder(package) + "/model.onnx"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    requirements = (package / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in requirements] == [
        "mlflow",
        "numpy",
        "onnxruntime",
        "pandas",
    ]


def _folder(package: Path) -> str:
    (folder,) = (package / "artifacts").iterdir()
    return folder.name


def test_the_served_code_is_one_file() -> None:
    code = served_code()
    assert "recsys_core" not in code
    assert "import tasks" not in code
    compile(code, "served_model.py", "exec")


def test_it_loads_where_this_project_is_not_installed(
    package: Path, scorer: Scorer, tmp_path: Path
) -> None:
    # -S: no .pth files, so the project's editable installation does not exist for this process.
    code = """
import sys
sys.path.append(sys.argv[1])
from importlib.util import find_spec
assert find_spec("recsys_core") is None and find_spec("tasks") is None
import mlflow, pandas as pd, json
model = mlflow.pyfunc.load_model(sys.argv[2])
answer = model.predict(pd.DataFrame({"history": [["i3", "i17", "i9"], []]}), params={"k": 3})
assert "torch" not in sys.modules
print(json.dumps(answer.to_dict("list")))
"""
    (site_packages,) = [path for path in sys.path if path.endswith("site-packages")]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, site_packages, str(package)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    expected = scorer.recommend([["i3", "i17", "i9"], []], k=3)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["item_ids"] == [answer.item_ids for answer in expected]
