"""The commands that look at the lake and take from it, over the lake of an ingest stage."""

import json
import sys
from datetime import date
from pathlib import Path

import pytest

from flows.cli import main as cli
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `recdistill data` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["recdistill", "data", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace whose lake holds three dates with a gap, and a refused row."""
    return _ingested(tmp_path)


def _ingested(tmp_path: Path, hash_user_ids: str | None = None) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [
        "u,a,2026-01-01",
        "u,b,2026-01-02",
        "v,a,2026-01-05",
        ",a,2026-01-05",
        "u,a,2026-01-01",
    ]
    (folder / "a.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    config = SourceConfig(interactions=folder, timestamp_unit="iso", hash_user_ids=hash_user_ids)
    workspace = tmp_path / "workspace"
    stage_run = StageRun.bare(workspace, workspace / "out")
    sources = source_fingerprint(config)
    ingest.body(stage_run, config=config, run_date=date(2026, 1, 10), sources=sources)
    return workspace


def test_status_shows_dates_gaps_quarantine_and_sources(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--workspace", str(workspace)) == 0

    shown = capsys.readouterr().out
    for part in (
        "3 dates with interactions, 2026-01-01 to 2026-01-05.",
        "Gaps: 2026-01-03 to 2026-01-04.",
        "missing user_id",
        "1 source files brought 5 rows = 3 kept + 1 quarantined + 1 duplicates.",
        "Not validated yet: interactions/a.csv.",
    ):
        assert part in shown


def test_status_for_programs_is_json(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--workspace", str(workspace), "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["rows_by_date"] == {"2026-01-01": 1, "2026-01-02": 1, "2026-01-05": 1}
    assert found["gaps"] == [["2026-01-03", "2026-01-04"]]
    assert found["quarantined"] == {"missing user_id": 1}
    assert {table["name"]: table["rows"] for table in found["tables"]} == {
        "interactions": 3,
        "items": 0,
        "item_index": 2,
        "event_types": 1,
        "quarantine": 1,
        "sources": 1,
    }


def test_status_before_the_first_night_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--workspace", str(tmp_path / "empty")) == 1
    assert "There is no lake in" in capsys.readouterr().err
    assert not (tmp_path / "empty" / "lake").exists()


def _users(workspace: Path) -> set[str]:
    return set(Lake(workspace / "lake").scan("interactions").collect()["user_id"])


def test_forgetting_needs_a_yes_and_a_dry_run_changes_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = ("forget", "--user", "u", "--workspace", str(workspace))
    assert run(monkeypatch, *about, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "Lake: 2 interactions, the oldest of 2026-01-01T00:00:00+00:00" in shown
    assert "Source files that hold the user, and stay: interactions/a.csv." in shown

    assert run(monkeypatch, *about) == 1
    assert "Nothing was erased: --yes was not given" in capsys.readouterr().err
    assert _users(workspace) == {"u", "v"}

    assert run(monkeypatch, *about, "--yes") == 0
    assert "lists what was found" in capsys.readouterr().out
    assert _users(workspace) == {"v"}

    assert run(monkeypatch, "forget", "--user", "x", "--workspace", str(workspace), "--yes") == 0
    assert "The workspace holds nothing about this user." in capsys.readouterr().out


def test_hashed_users_are_forgotten_by_the_id_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USER_KEY", "a key of more than sixteen bytes")
    workspace = _ingested(tmp_path, "USER_KEY")
    config = tmp_path / "night.toml"
    source = f'[source]\ninteractions = "{tmp_path / "in"}"\n'
    config.write_text(f'workspace = "{workspace}"\n{source}hash_user_ids = "USER_KEY"\n')
    assert len(_users(workspace)) == 2
    assert run(monkeypatch, "forget", "--user", "u", "--config", str(config), "--yes") == 0
    assert "Lake: 2 interactions" in capsys.readouterr().out
    assert len(_users(workspace)) == 1

    monkeypatch.setenv("USER_KEY", "another key of more than sixteen bytes")
    assert run(monkeypatch, "forget", "--user", "v", "--config", str(config), "--yes") == 1
    assert "hashed with another key" in capsys.readouterr().err
    monkeypatch.delenv("USER_KEY")
    assert run(monkeypatch, "forget", "--user", "v", "--config", str(config), "--yes") == 1
    assert "environment variable USER_KEY, which is not set" in capsys.readouterr().err
    assert len(_users(workspace)) == 1


def test_cleaning_says_what_goes_before_it_does(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = workspace.parent / "night.toml"
    config.write_text(
        f'workspace = "{workspace}"\n[retention]\nevents_days = 1\nversions_days = 0\n'
    )
    held = sorted(workspace.glob("lake/interactions/*/*.parquet"))
    assert run(monkeypatch, "clean", "--config", str(config), "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "Would be deleted: 3 interactions past the retention period" in shown
    assert sorted(workspace.glob("lake/interactions/*/*.parquet")) == held

    assert run(monkeypatch, "clean", "--config", str(config)) == 0
    shown = capsys.readouterr().out
    assert "Deleted: 3 interactions past the retention period" in shown
    assert all(str(path) in shown for path in held)
    assert not list(workspace.glob("lake/interactions/*/*.parquet"))
