"""The command line: help, sentences for mistakes, answers."""

import io
import json
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from flows.cli import main as cli
from flows.datasets.archives import md5_file
from flows.pipeline import PIPELINE
from tasks.contracts.night import ModelRow, NightSummary
from tasks.contracts.registry import Registered


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `recdistill` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["recdistill", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["nightly"],
        ["recommend"],
        ["report"],
        ["up"],
        ["down"],
        ["data"],
        ["data", "synthetic"],
        ["data", "fetch"],
        ["data", "status"],
        ["data", "backfill"],
        ["data", "clean"],
        ["data", "forget"],
    ],
)
def test_every_command_has_help(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *command, "--help") == 0
    assert "Usage: recdistill" in capsys.readouterr().out


def test_a_mistake_is_a_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    status = run(monkeypatch, "nightly", "--config", "nowhere.toml")

    said = capsys.readouterr().err
    assert status == 1
    assert "There is no configuration file nowhere.toml" in said
    assert "Traceback" not in said


def test_a_plan_lists_every_stage_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run(monkeypatch, "nightly", "--plan", "--json", "--run-date", "2026-03-10") == 0

    plan = json.loads(capsys.readouterr().out)
    assert plan["run_date"] == "2026-03-10"
    assert [step["stage"] for step in plan["stages"]] == [
        step.stage.name for step in PIPELINE.steps
    ]
    assert {(step["runs"], step["why"]) for step in plan["stages"]} == {(True, "never finished")}
    assert not (tmp_path / "workspace" / "stages").exists()


def test_recommend_before_the_first_night_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run(monkeypatch, "recommend", "--history", "1,2") == 1
    assert "recdistill nightly" in capsys.readouterr().err


def test_report_before_the_first_night_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run(monkeypatch, "report") == 1
    assert "No night has finished" in capsys.readouterr().err


def test_report_shows_the_newest_night(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = NightSummary(
        run_date=date(2026, 3, 31),
        models=[
            ModelRow(
                model="teacher",
                ndcg_at_10=0.25,
                recall_at_10=0.5,
                size_bytes=1234567,
                latency_ms_p50=0.5,
            )
        ],
        split="test",
        n_cases=12,
        passed=False,
        verdict="One rule failed.",
        registered=Registered(
            name="x-student", version=3, run_id="r", tracking_uri="sqlite:///x.db"
        ),
        report="/somewhere/report.html",
        ran=[],
        skipped=["ingest"],
    )
    summary.save(tmp_path / "workspace/nights/one")

    assert run(monkeypatch, "report") == 0

    shown = capsys.readouterr().out
    for part in ("0.2500", "1,235 kB", "refused. One rule failed.", "models:/x-student/3"):
        assert part in shown
    assert "nothing had to run again" in shown

    assert run(monkeypatch, "report", "--json") == 0
    assert json.loads(capsys.readouterr().out) == summary.model_dump(mode="json")


def test_synthetic_writes_and_extends_a_world(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = ["data", "synthetic", "--out", str(tmp_path / "w"), "--users", "50", "--items", "40"]

    assert run(monkeypatch, *world, "--days", "3", "--through", "2026-03-03") == 0
    assert run(monkeypatch, *world, "--through", "2026-03-04") == 0

    days = sorted(path.stem for path in (tmp_path / "w" / "interactions").glob("*.parquet"))
    assert days == ["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"]
    assert pl.read_parquet(tmp_path / "w" / "items.parquet").height >= 40
    assert json.loads((tmp_path / "w" / "world.json").read_text())["first_day"] == "2026-03-01"


def test_data_sets_are_listed_with_their_licences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "data", "fetch") == 0

    said = capsys.readouterr().out
    assert "ml-32m" in said
    assert "239 MB" in said
    assert "https://files.grouplens.org/datasets/movielens/ml-25m-README.html" in said


def test_a_data_set_is_fetched_once_its_licence_is_accepted(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_archive: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal, so nobody can answer
    beside = small_archive.with_name(f"{small_archive.name}.md5")
    beside.write_text(f"{md5_file(small_archive)}  {small_archive.name}\n")
    command = ["data", "fetch", "ml-latest-small", "--file", str(small_archive)]

    assert run(monkeypatch, *command) == 1
    said = capsys.readouterr()
    assert "University of Minnesota" in said.out
    assert "--accept-licence" in said.err
    assert not (tmp_path / "data").exists()

    assert run(monkeypatch, *command, "--accept-licence") == 0
    said = capsys.readouterr().out
    assert "data/ml-latest-small now holds ml-latest-small" in said
    assert f'interactions = "{tmp_path}/data/ml-latest-small"' in said

    assert run(monkeypatch, *command) == 0
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert "run_date = 2018-09-25" in said


def test_a_wrong_archive_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    small_archive: Path,
) -> None:
    where = ["--to", str(tmp_path / "there"), "--file", str(small_archive)]

    assert run(monkeypatch, "data", "fetch", "ml-1m", *where, "--accept-licence") == 1

    said = capsys.readouterr().err
    assert "not c4d9eecfca2ab87c1945afe126590906 as ml-1m.zip should" in said
    assert "Traceback" not in said
    assert not (tmp_path / "there").exists()
