"""A change of behaviour below a stage is always noticed; a mended sentence never costs a run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.stage_code import below, read_modules
from infra.stage_versions import StageFacts, declared_stages, problems, recorded

ROOT = Path(__file__).parents[2]
EMPTY: dict[str, Any] = {"modules": {}, "stages": {}}
SOURCES = {
    "recsys_core/__init__.py": '"""A core."""\n',
    "recsys_core/losses.py": '''"""Losses."""

import math

from pydantic import Field


class Settings:
    """Of the loss."""

    scale: float = Field(default=1.0, description="What the loss is multiplied by")


def loss(x: float) -> float:
    """The loss."""
    if x <= 0:
        msg = f"x is {x}, but must be positive"
        raise ValueError(msg)
    return math.log(x)
''',
    "recsys_core/other_losses.py": '"""Others."""\n\n\ndef loss(x: float) -> float:\n    ...\n',
    "recsys_core/loop.py": "from recsys_core.losses import loss\n\nLOSS = loss\n",
    "tasks/__init__.py": "",
    "tasks/engine/__init__.py": "",
    "tasks/engine/run.py": "RUNS = 1\n",
    "tasks/train.py": (
        "from tasks.engine.run import RUNS\n\n\ndef train() -> None:\n    import recsys_core.loop\n"
    ),
    "tasks/report.py": 'import json\n\nTEMPLATE = "page.html.j2"\n',
    "tasks/page.html.j2": '<p>{% include "style.css.j2" %}',
    "tasks/style.css.j2": "p {}",
}
STAGES = {
    "train": StageFacts("tasks.train", 1, ()),
    "report": StageFacts("tasks.report", 1, ()),
}

Edit = Callable[[str, str, str], None]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def record(tree: Path) -> dict[str, Any]:
    return recorded(STAGES, read_modules(tree), EMPTY)


def _edit(tree: Path, name: str, old: str, new: str) -> None:
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new))


def _found(tree: Path, record: dict[str, Any]) -> list[str]:
    return list(problems(STAGES, read_modules(tree), record))


def test_a_recorded_tree_has_no_problems(tree: Path, record: dict[str, Any]) -> None:
    assert _found(tree, record) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import math\n", "import math  # for the logarithm\n"),
        ("The loss.", "Another sentence."),
        ('"""Losses."""\n', ""),
        ("math.log(x)", "(\n        math.log(x)\n    )"),
        ("What the loss is multiplied by", "Factor of the loss"),
        ('f"x is {x}, but must be positive"', 'f"expected a positive x, got {x}"'),
    ],
)
def test_prose_and_layout_do_not_count(
    tree: Path, record: dict[str, Any], old: str, new: str
) -> None:
    _edit(tree, "recsys_core/losses.py", old, new)
    assert _found(tree, record) == []


def test_a_moved_module_does_not_count(tree: Path, record: dict[str, Any]) -> None:
    (tree / "recsys_core/training").mkdir()
    (tree / "recsys_core/losses.py").rename(tree / "recsys_core/training/softmax.py")
    _edit(tree, "recsys_core/loop.py", "recsys_core.losses", "recsys_core.training.softmax")
    assert _found(tree, record) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "named"),
    [
        ("recsys_core/losses.py", "math.log(x)", "-math.log(x)", "recsys_core.losses"),
        ("recsys_core/losses.py", "x <= 0", "x < 0", "recsys_core.losses"),
        ("recsys_core/losses.py", "default=1.0", "default=2.0", "recsys_core.losses"),
        ("recsys_core/losses.py", "raise ValueError(msg)", "return 0.0", "recsys_core.losses"),
        ("recsys_core/loop.py", "= loss", "= print", "recsys_core.loop"),
        ("recsys_core/__init__.py", "A core.", 'A core."""\nprint()\n"""', "recsys_core"),
        ("tasks/train.py", "import recsys_core.loop", "import recsys_core.losses", "tasks.train"),
    ],
)
def test_a_change_of_behaviour_names_the_stage_and_the_module(
    tree: Path, record: dict[str, Any], name: str, old: str, new: str, named: str
) -> None:
    _edit(tree, name, old, new)
    assert f"train, version 1: the code below it changed ({named})." in _found(tree, record)


def test_another_function_of_the_same_name_counts(tree: Path, record: dict[str, Any]) -> None:
    """Both modules are known, so what changed is only which of the two is imported."""
    _edit(tree, "tasks/train.py", "import recsys_core.loop", "import recsys_core.other_losses")
    _edit(tree, "recsys_core/other_losses.py", '"""Others."""', "import recsys_core.loop")
    both = recorded(STAGES, read_modules(tree), EMPTY)
    _edit(tree, "recsys_core/loop.py", "recsys_core.losses", "recsys_core.other_losses")
    (problem,) = _found(tree, both)
    assert "what is imported from where" in problem


def test_templates_count_with_the_module_that_names_them(
    tree: Path, record: dict[str, Any]
) -> None:
    for name in ("tasks/page.html.j2", "tasks/style.css.j2"):
        before = (tree / name).read_text()
        (tree / name).write_text(before + " ")
        (problem,) = _found(tree, record)
        assert problem.startswith("report, version 1: the code below it changed")
        (tree / name).write_text(before)


def test_what_runs_stages_does_not_count(tree: Path, record: dict[str, Any]) -> None:
    _edit(tree, "tasks/engine/run.py", "1", "2")
    assert _found(tree, record) == []


def test_a_raised_version_is_recorded_and_a_forgotten_one_refused(
    tree: Path, record: dict[str, Any]
) -> None:
    _edit(tree, "recsys_core/losses.py", "math.log(x)", "-math.log(x)")
    modules = read_modules(tree)
    with pytest.raises(SystemExit, match="train: raise the version"):
        recorded(STAGES, modules, record)
    raised = STAGES | {"train": StageFacts("tasks.train", 2, ())}
    (problem,) = problems(raised, modules, record)
    assert problem == "train has version 2: run `python -m infra.stage_versions --record`."
    assert list(problems(raised, modules, recorded(raised, modules, record))) == []


def test_a_neutral_change_is_recorded_with_its_reason(tree: Path, record: dict[str, Any]) -> None:
    _edit(tree, "recsys_core/losses.py", "math.log(x)", "math.log(x, math.e)")
    modules = read_modules(tree)
    assert (
        recorded(STAGES, modules, record, neutral="the same logarithm", only=["report"]) == record
    )
    new = recorded(STAGES, modules, record, neutral="the same logarithm", only=["train"])
    assert list(problems(STAGES, modules, new)) == []
    assert new["stages"]["train"]["neutral"] == ["the same logarithm"]
    assert new["stages"]["report"] == record["stages"]["report"]


def test_an_undeclared_library_is_named(tree: Path, record: dict[str, Any]) -> None:
    _edit(tree, "recsys_core/losses.py", "import math\n", "import math\nimport scipy\n")
    found = _found(tree, record)
    assert "train: its code imports scipy, which its `libraries` lack" in found[1]
    declared = STAGES | {"train": StageFacts("tasks.train", 1, ("scipy",))}
    assert len(list(problems(declared, read_modules(tree), record))) == 1


def test_a_statement_in_any_module_of_ours_is_noticed_by_every_stage_above_it(
    tmp_path: Path,
) -> None:
    """The real source: nothing that a stage imports is out of the check's sight."""
    for package in ("recsys_core", "tasks"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    stages, before = declared_stages(), read_modules(tmp_path)
    record = recorded(stages, before, EMPTY)
    assert list(problems(stages, before, record)) == []
    chosen = sorted(below(stages["train_teacher"].module, before))[::9]
    assert len(chosen) >= 4
    for module in chosen:
        path = tmp_path.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        text = path.read_text(encoding="utf-8")
        path.write_text(f"{text}\nprint()\n", encoding="utf-8")
        noticed = {
            problem.split(",")[0]
            for problem in problems(stages, read_modules(tmp_path), record)
            if f"({module})" in problem
        }
        above = {name for name, stage in stages.items() if module in below(stage.module, before)}
        assert noticed == above, module
        path.write_text(text, encoding="utf-8")
