"""`recdistill recommend` asks the champion of a finished night."""

import sys
from pathlib import Path

import polars as pl
import pytest

from flows.cli.main import main
from flows.cli.recommend import NoChampionError, recommend
from flows.config import NightlyConfig
from tests.tiny import as_toml


@pytest.fixture
def titles(first_night: NightlyConfig) -> dict[str, str]:
    """Title of every item of the source, by id."""
    items = pl.read_parquet(first_night.synthetic.folder / "items.parquet")
    return dict(items.select("item_id", "title").iter_rows())


def test_the_answer_is_ranked_and_has_titles(
    first_night: NightlyConfig, titles: dict[str, str]
) -> None:
    history = sorted(titles)[:2]

    rows = recommend(first_night, history, k=5, explain=False)

    ranks, item_ids, shown, scores = zip(*rows, strict=True)
    assert ranks == ("1", "2", "3", "4", "5")
    assert len(set(item_ids) - set(history)) == 5
    assert list(shown) == [titles[item_id] for item_id in item_ids]
    assert list(scores) == sorted(scores, key=float, reverse=True)


def test_an_explanation_is_an_item_of_the_history(
    first_night: NightlyConfig, titles: dict[str, str]
) -> None:
    history = sorted(titles)[:3]

    explained = recommend(first_night, history, k=4, explain=True)

    assert [row[:-1] for row in explained] == recommend(first_night, history, k=4, explain=False)
    assert {row[-1] for row in explained} <= {titles[item_id] for item_id in history}


def test_unknown_items_are_ignored(first_night: NightlyConfig, titles: dict[str, str]) -> None:
    known = sorted(titles)[:2]
    popular = recommend(first_night, [], k=3, explain=False)

    assert recommend(first_night, ["nobody's"], k=3, explain=False) == popular
    assert recommend(first_night, ["nobody's", *known], k=3, explain=False) == recommend(
        first_night, known, k=3, explain=False
    )
    assert [row[-1] for row in recommend(first_night, ["nobody's"], k=3, explain=True)] == [""] * 3


def test_the_command_prints_a_table(
    first_night: NightlyConfig,
    titles: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = first_night.model_dump(mode="json", include={"name", "workspace"})
    Path("night.toml").write_text(as_toml(settings), encoding="utf-8")
    history = sorted(titles)[:2]
    command = ["recommend", "--history", ", ".join(history), "-k", "3", "--config", "night.toml"]
    monkeypatch.setattr(sys, "argv", ["recdistill", *command, "--explain"])
    monkeypatch.setenv("COLUMNS", "200")

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "because of" in printed
    for row in recommend(first_night, history, k=3, explain=True):
        assert all(cell in printed for cell in row)


def test_without_a_champion_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoChampionError, match=r"recdistill-student has no champion.*nightly"):
        recommend(NightlyConfig(workspace=tmp_path), ["a"], k=3, explain=False)
