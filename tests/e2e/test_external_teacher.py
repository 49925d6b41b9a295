"""A whole night whose teacher was made elsewhere, by the command line alone."""

import json
import sys
from pathlib import Path

import pytest

from flows.cli import main as cli
from flows.config import NightlyConfig
from recsys_core.artifacts import read_json, sha256_file
from tasks.registry.store import CHAMPION, Registry, student_name
from tests.tiny import RUN_DATE, as_toml, tiny_settings
from tests.true_labels import LEAST_GAIN, gain_over_control, write_true_labels

pytestmark = pytest.mark.slow

TEACHER = "one who knows"
RULES = [
    {"name": "close to the teacher", "relative_to": "teacher", "margin": 0.15},
    {"name": "the teacher ranks", "model": "teacher", "at_least": 0.0},
]


def recdistill(patch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command in this process, as the program does."""
    patch.setattr(sys, "argv", ["recdistill", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_night_learns_from_labels_made_elsewhere(
    prefect_server: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tiny_settings(Path("workspace")) | {
        "teacher": {"source": "external"},
        "soft_labels": {"store": "labels"},
        "gate": {"rules": RULES},
    }
    settings["student"]["content_features"] = 0  # so that labels have much to teach
    Path("night.toml").write_text(as_toml(settings))
    night = ("nightly", "--config", "night.toml", "--run-date", str(RUN_DATE), "--json")

    assert recdistill(monkeypatch, *night) == 1, "there are no labels yet"
    assert "recdistill soft-labels import" in capsys.readouterr().err
    (prepared,) = Path("workspace/stages/prepare").glob("*/split.json")
    world = NightlyConfig.model_validate(settings).synthetic.folder
    n_labels = write_true_labels(Path("labels.jsonl"), world, prepared.parent)
    end = read_json(prepared)["trained_through"][:10]
    named = ("--out", "labels", "--teacher", TEACHER, "--trained-through", end)
    config = ("--config", "night.toml")
    assert recdistill(monkeypatch, "soft-labels", "import", "labels.jsonl", *named, *config) == 0
    capsys.readouterr()
    assert recdistill(monkeypatch, *night) == 0

    summary = json.loads(capsys.readouterr().out)
    assert summary["passed"]
    assert "teacher" not in [row["model"] for row in summary["models"]]
    made = {path.name for path in Path("workspace/stages").iterdir()}
    assert {"write_soft_labels", "distill", "control", "promote"} <= made
    assert made & {"plan_teacher", "train_teacher", "check_teacher"} == set()
    student, control = (
        next(Path("workspace/stages", stage).glob("*/summary.json")).parent
        for stage in ("distill", "control")
    )
    assert gain_over_control(student, control) > LEAST_GAIN
    (verdict,) = Path("workspace/stages/gate").glob("*/verdict.json")
    against_control, of_teacher = read_json(verdict)["rules"]
    assert against_control["outcome"] == "pass"
    assert "The control stands in: ndcg_at_10 of compressed" in against_control["sentence"]
    assert of_teacher["outcome"] == "skipped"
    _check_origin(n_labels, summary["report"])


def _check_origin(n_labels: int, report: str) -> None:
    name = NightlyConfig.model_validate(tiny_settings(Path("workspace"))).name
    registry = Registry(Path("workspace"), NightlyConfig().registry)
    champion = registry.client.get_model_version_by_alias(student_name(name), CHAMPION)
    store = sha256_file(Path("labels/soft_labels.json"))
    assert champion.tags["labels.teacher"] == TEACHER
    assert champion.tags["labels.store_sha256"] == store
    assert champion.tags["labels.labels"] == str(n_labels)
    assert "made_of.teacher" not in champion.tags
    assert f"distilled from soft labels of `{TEACHER}`" in (champion.description or "")
    page = Path(report).read_text()
    assert TEACHER in page
    assert store in page
    assert "No teacher was trained" in page
