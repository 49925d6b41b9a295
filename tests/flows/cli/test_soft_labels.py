"""The commands under `recdistill soft-labels`, over a workspace with prepared data."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.cli import main as cli
from flows.cli.label_store import import_file
from flows.config import NightlyConfig
from flows.nightly import nightly, plan
from recsys_core.artifacts import Artifact, publish, read_json, write_json
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.privacy.pseudonyms import claim_key, pseudonymise
from recsys_core.data.soft_labels.description import SoftLabelDescription
from recsys_core.data.soft_labels.importing import ImportSummary
from tasks.stages.control import control
from tasks.stages.distill import DistillationConfig, distill
from tasks.stages.prepare import prepare
from tasks.stages.train_teacher import train_teacher
from tasks.stages.write_soft_labels import SoftLabelConfig, write_soft_labels
from tests.flows.conftest import NAMED_USER
from tests.tiny import RUN_DATE
from tests.true_labels import LEAST_GAIN, gain_over_control, write_true_labels

ROWS = [
    {"user_id": "a", "n_events": 1, "item_ids": ["z", "nothing", "x"]},
    {"user_id": "b", "n_events": 1, "item_ids": ["w"]},
    {"user_id": "nobody", "n_events": 1, "item_ids": ["w"]},
]


class Command:
    """`recdistill soft-labels` with the workspace of a test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.workspace, self.store = folder, folder / "workspace", folder / "store"
        self._patch = monkeypatch

    def __call__(self, *arguments: str) -> int:
        words = ["recdistill", "soft-labels", *arguments, "--workspace", str(self.workspace)]
        self._patch.setattr(sys, "argv", words)
        self._patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    def import_(self, rows: list[dict[str, Any]], *arguments: str) -> int:
        file = self.folder / "labels.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        options = ("--out", str(self.store), "--teacher", "a language model")
        return self("import", str(file), *options, *arguments)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Without a night."""
    return Command(tmp_path, monkeypatch)


@pytest.fixture
def after_a_night(
    command: Command,
    obvious_world: Artifact,
    write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]],
) -> Command:
    """With the prepared data of a night whose training events end before 2026."""
    folder = command.workspace / "stages" / "prepare" / "key"
    write_buckets(folder / "histories", [[("a", [2, 3, 4], 3, 3)], [("b", [3, 5, 1], 2, 3)], []])
    items = pl.DataFrame({"item_id": ["v", "w", "x", "y", "z"], "item_idx": [1, 2, 3, 4, 5]})
    items.write_parquet(folder / "items.parquet")
    split = read_json(obvious_world.file("split.json"))
    changes = {
        "item_index_sha256": index_prefix_sha256(items["item_id"]),
        "n_items": 5,
        "trained_through": "2026-01-01T00:00:00+00:00",
    }
    write_json(folder / "split.json", split | changes)
    publish(Artifact("prepare", "key", folder), {}, {})
    return command


Captured = pytest.CaptureFixture[str]


def test_import_counts_what_it_drops(after_a_night: Command, capsys: Captured) -> None:
    assert after_a_night.import_(ROWS) == 0
    shown = capsys.readouterr()
    assert "store holds 2 labels of the 3 rows of labels.jsonl." in shown.out
    assert shown.err == ""
    assert "rows of users without a history" in shown.out
    assert "unknown items" in shown.out


def test_import_for_programs_is_json(after_a_night: Command, capsys: Captured) -> None:
    assert after_a_night.import_(ROWS, "--json", "--trained-through", "2025-12-31") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["labels"]) == (3, 2)
    assert found["dropped_rows"] == {"of users without a history": 1}
    assert found["dropped_items"] == {"unknown items": 1}
    described = read_json(after_a_night.store / "soft_labels.json")
    assert described["trained_through"] == "2025-12-31T00:00:00+00:00"


def test_validate_and_inspect(after_a_night: Command, capsys: Captured) -> None:
    after_a_night.import_(ROWS)
    capsys.readouterr()
    store = str(after_a_night.store)
    assert after_a_night("validate", store) == 0
    covered = "2 of 2 users, 2 of 3 positions, 3 of 5 items"
    assert f"is unchanged and fits: {covered}." in capsys.readouterr().out
    assert after_a_night("inspect", store) == 0
    shown = capsys.readouterr().out
    for part in ("sparse, top_ids", "a language model", "through an unknown time", covered):
        assert part in shown
    assert after_a_night("validate", store, "--json") == 0
    assert json.loads(capsys.readouterr().out)["positions"] == 2
    assert after_a_night("inspect", store, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["coverage"]["n_positions"] == 3
    assert facts["bytes_per_label"] == facts["bytes"] / 2
    assert (facts["layout"], facts["top_k"]) == ("sparse", 3)


def test_a_changed_store_is_invalid_and_can_be_inspected(
    after_a_night: Command, capsys: Captured
) -> None:
    after_a_night.import_(ROWS)
    path = after_a_night.store / "labels" / "bucket-000.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    assert after_a_night("validate", str(after_a_night.store)) == 1
    assert "has changed since the soft labels were written" in capsys.readouterr().err
    assert after_a_night("inspect", str(after_a_night.store)) == 0
    assert "coverage  unknown." in capsys.readouterr().out


def test_a_store_of_a_larger_catalogue_is_refused(after_a_night: Command, capsys: Captured) -> None:
    after_a_night.import_(ROWS)
    path = after_a_night.store / "soft_labels.json"
    write_json(path, read_json(path) | {"n_items": 6})
    assert after_a_night("validate", str(after_a_night.store)) == 1
    assert "belongs to another workspace" in capsys.readouterr().err


def test_errors_name_file_row_and_field(after_a_night: Command, capsys: Captured) -> None:
    rows = [dict(row, scores=[1.0] * len(row["item_ids"])) for row in ROWS]
    rows[1]["scores"] = [1.0, 2.0]
    assert after_a_night.import_(rows) == 1
    assert "labels.jsonl, row 2, scores: found 2 for 1 item_ids" in capsys.readouterr().err


def test_a_teacher_of_later_events_is_refused(after_a_night: Command, capsys: Captured) -> None:
    assert after_a_night.import_(ROWS, "--trained-through", "2026-01-02") == 1
    assert "it has seen what the student is evaluated on" in capsys.readouterr().err
    assert not after_a_night.store.exists()


def test_without_dates_a_leak_is_possible_whatever_is_claimed(
    after_a_night: Command, capsys: Captured
) -> None:
    folder = after_a_night.workspace / "stages" / "prepare" / "key"
    split = folder / "split.json"
    write_json(split, read_json(split) | {"kind": "leave_one_out", "trained_through": None})
    publish(Artifact("prepare", "key", folder), {}, {})
    assert after_a_night.import_(ROWS, "--trained-through", "2025-12-31", "--json") == 0
    said = capsys.readouterr()
    assert "can't be checked whether a language model has seen" in said.err
    assert json.loads(said.out)["labels"] == 2


def test_user_ids_are_hashed_as_in_the_lake(
    after_a_night: Command, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    key = b"sixteen bytes or more"
    monkeypatch.setenv("THE_KEY", key.decode())
    for path in after_a_night.workspace.glob("stages/prepare/key/histories/*.parquet"):
        table = pl.read_parquet(path)
        table.with_columns(user_id=pseudonymise(table["user_id"], key)).write_parquet(path)
    claim_key(after_a_night.workspace / "lake", key)
    config = after_a_night.folder / "night.toml"
    (after_a_night.folder / "in").mkdir()
    config.write_text("[source]\ninteractions = 'in'\nhash_user_ids = 'THE_KEY'\n")
    folder = after_a_night.workspace / "stages" / "prepare" / "key"
    publish(Artifact("prepare", "key", folder), {}, {})
    assert after_a_night.import_(ROWS, "--config", str(config), "--json") == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 2
    after_a_night.store = after_a_night.folder / "of hashed ids"
    ids = pseudonymise(pl.Series([row["user_id"] for row in ROWS]), key)
    hashed = [row | {"user_id": user_id} for row, user_id in zip(ROWS, ids, strict=True)]
    assert after_a_night.import_(hashed, "--config", str(config), "--json") == 1, "hashed twice"
    assert "user ids that are hashed already need --hashed" in capsys.readouterr().err
    assert after_a_night.import_(hashed, "--config", str(config), "--json", "--hashed") == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 2


def test_a_night_learns_from_imported_labels(first_night: NightlyConfig) -> None:
    """The student of a teacher that knows the world beats its control, and the night's own."""
    prepared = plan(first_night, RUN_DATE)[prepare]
    world = first_night.synthetic.folder
    rows = write_true_labels(Path("labels.jsonl"), world, prepared.folder, but=NAMED_USER)
    imported = _import(first_night, Path("labels.jsonl"))
    assert imported.labels == imported.rows == rows
    assert imported.dropped_rows == {}
    changed = {
        "student": first_night.student.model_copy(update={"content_features": 0}),
        "soft_labels": SoftLabelConfig(store=Path("labels")),
        "distillation": DistillationConfig(initialise="random"),  # as the control is
    }
    config = first_night.model_copy(update=changed)
    nightly(config, RUN_DATE)
    outcome = plan(config, RUN_DATE)
    assert not any(decision.runs for decision in outcome)
    described = SoftLabelDescription.load(outcome[write_soft_labels])
    assert (described.layout, described.teacher) == ("sparse", "one who knows")
    assert described.rows == rows
    before = plan(first_night, RUN_DATE)
    assert outcome[train_teacher].key == before[train_teacher].key
    assert gain_over_control(outcome[distill].folder, outcome[control].folder) > LEAST_GAIN

    shutil.rmtree("labels")
    _import(first_night, Path("labels.jsonl"))
    assert not any(decision.runs for decision in plan(config, RUN_DATE)), "the same labels"
    shutil.rmtree("labels")
    lines = Path("labels.jsonl").read_text().splitlines()
    Path("fewer.jsonl").write_text("\n".join(lines[::2]))
    _import(first_night, Path("fewer.jsonl"))
    again = plan(config, RUN_DATE).decisions
    assert again[write_soft_labels].reason.startswith("changed since the last output: label_store")
    assert again[write_soft_labels].runs
    assert again[distill].runs
    assert not again[train_teacher].runs


def _import(config: NightlyConfig, file: Path) -> ImportSummary:
    return import_file(
        config,
        file,
        Path("labels"),
        teacher="one who knows",
        trained_through=None,
        max_items=64,
    )


def test_before_the_first_night_there_is_a_sentence(command: Command, capsys: Captured) -> None:
    assert command.import_(ROWS) == 1
    assert "No night has prepared data in" in capsys.readouterr().err
