"""A whole night whose teacher was made elsewhere, by the command line alone."""

import json
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.cli import main as cli
from flows.config import NightlyConfig
from recsys_core.artifacts import read_json, sha256_file
from tasks.registry.store import CHAMPION, Registry, student_name
from tests.tiny import RUN_DATE, as_toml, tiny_settings

pytestmark = pytest.mark.slow

TEACHER = "items bought together"
RULES = [
    {"name": "close to the teacher", "relative_to": "teacher", "margin": 0.9},
    {"name": "the teacher ranks", "model": "teacher", "at_least": 0.0},
]


def recdistill(patch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command in this process, as the program does."""
    patch.setattr(sys, "argv", ["recdistill", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def labels_of_pairs(prepared: Path) -> list[dict[str, Any]]:
    """After each training event, the ten items most often in one history with that event's item."""
    items = pl.read_parquet(prepared / "items.parquet").sort("item_idx")["item_id"]
    users = pl.read_parquet(prepared / "histories" / "*.parquet")
    histories = {
        user: [items[item - 1] for item in events[:end]]
        for user, events, end in users.select("user_id", "item_idx", "train_end").iter_rows()
    }
    together: dict[str, Counter[str]] = {item: Counter() for item in items}
    for history in histories.values():
        for one, other in combinations(sorted(set(history)), 2):
            together[one][other] += 1
            together[other][one] += 1
    return [
        {
            "user_id": user,
            "n_events": n,
            "last_item_id": history[n - 1],
            "item_ids": [item for item, _ in ranked],
            "scores": [float(count) for _, count in ranked],
        }
        for user, history in histories.items()
        for n in range(1, len(history))
        if (ranked := together[history[n - 1]].most_common(10))
    ]


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
    Path("night.toml").write_text(as_toml(settings))
    night = ("nightly", "--config", "night.toml", "--run-date", str(RUN_DATE), "--json")

    assert recdistill(monkeypatch, *night) == 1, "there are no labels yet"
    assert "recdistill soft-labels import" in capsys.readouterr().err
    (prepared,) = Path("workspace/stages/prepare").glob("*/split.json")
    rows = labels_of_pairs(prepared.parent)
    Path("labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
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
    (verdict,) = Path("workspace/stages/gate").glob("*/verdict.json")
    against_control, of_teacher = read_json(verdict)["rules"]
    assert against_control["outcome"] == "pass"
    assert "The control stands in: ndcg_at_10 of compressed" in against_control["sentence"]
    assert of_teacher["outcome"] == "skipped"
    _check_lineage(len(rows), summary["report"])


def _check_lineage(n_labels: int, report: str) -> None:
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
