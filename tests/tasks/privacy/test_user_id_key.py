"""The key comes from the environment, and what it hides is nowhere in the workspace."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from recsys_core.artifacts import read_json
from recsys_core.data.lake.tables import Lake
from recsys_core.data.privacy.denylist import add_to_denylist
from recsys_core.data.privacy.pseudonyms import PseudonymError, pseudonymise
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.privacy.user_id_key import user_id_key
from tasks.stages.ingest import ingest
from tests.traces import traces

KEY = "a key of more than sixteen bytes"


def test_no_setting_no_key() -> None:
    assert user_id_key(None) is None


def test_the_key_is_what_the_variable_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_KEY", KEY)
    assert user_id_key("USER_KEY") == KEY.encode()


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_a_sentence(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("USER_KEY", value)
    with pytest.raises(PseudonymError, match=r"variable USER_KEY, which is not set.*openssl rand"):
        user_id_key("USER_KEY")


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [
        "anna-plain,a,2026-01-01",
        "otto-plain,b,2026-01-02",
        "anna-plain,b,someday",
        'otto-plain,"b,2026-01-02',
        "anna-plain,a,2026-01-01",
    ]
    (folder / "a.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    return SourceConfig(interactions=folder, timestamp_unit="iso", hash_user_ids="USER_KEY")


def _ingest(workspace: Path, config: SourceConfig) -> dict[str, int]:
    out = workspace / "out"
    run = StageRun.bare(workspace, out)
    sources = source_fingerprint(config)
    ingest.body(run, config=config, run_date=date(2026, 1, 10), sources=sources)
    (file,) = read_json(out / "ingest.json")["files"]
    return {part: file[f"rows_{part}"] for part in ("in", "kept", "quarantined", "duplicate")}


def test_no_plain_id_reaches_the_workspace(
    tmp_path: Path, source: SourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_KEY", KEY)

    counts = _ingest(tmp_path / "workspace", source)

    assert counts == {"in": 5, "kept": 2, "quarantined": 2, "duplicate": 1}
    users = Lake(tmp_path / "workspace/lake").scan("interactions").collect()["user_id"].unique()
    expected = pseudonymise(pl.Series(["anna-plain", "otto-plain"]), KEY.encode())
    assert set(users) == set(expected)
    assert traces(tmp_path / "workspace", "anna-plain") == []
    assert traces(tmp_path / "workspace", "otto-plain") == []
    assert traces(tmp_path / "workspace", expected[0]) != []


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("another key of more than sixteen", "hashed with another key"),
        ("short", "has 5 bytes; at least 16 are needed"),
    ],
)
def test_another_key_is_refused(
    key: str,
    problem: str,
    tmp_path: Path,
    source: SourceConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USER_KEY", KEY)
    _ingest(tmp_path, source)
    monkeypatch.setenv("USER_KEY", key)
    with pytest.raises(PseudonymError, match=problem):
        _ingest(tmp_path, source)


def test_hashing_can_be_neither_switched_on_nor_off(
    tmp_path: Path, source: SourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_KEY", KEY)
    plain = source.model_copy(update={"hash_user_ids": None})
    _ingest(tmp_path / "plain", plain)
    _ingest(tmp_path / "hashed", source)
    with pytest.raises(PseudonymError, match="holds user ids as they are"):
        _ingest(tmp_path / "plain", source)
    with pytest.raises(PseudonymError, match=r"source\.hash_user_ids is not set"):
        _ingest(tmp_path / "hashed", plain)


def test_a_forgotten_user_does_not_come_back(tmp_path: Path, source: SourceConfig) -> None:
    workspace, plain = tmp_path / "workspace", source.model_copy(update={"hash_user_ids": None})
    add_to_denylist(workspace / "lake", ["anna-plain"], today=date(2026, 1, 9), new_salt=bytes(32))

    counts = _ingest(workspace, plain)

    assert counts == {"in": 5, "kept": 1, "quarantined": 4, "duplicate": 0}
    refused = Lake(workspace / "lake").scan("quarantine").collect().sort("row")
    assert refused["reason"].to_list() == [
        "forgotten user",
        "forgotten user",
        "unbalanced quotes",
        "forgotten user",
    ]
    assert traces(workspace, "anna-plain") == []
