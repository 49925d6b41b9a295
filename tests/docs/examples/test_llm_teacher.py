# pyright: basic
"""The example that asks a language model: a small one with random weights, made here."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from docs.examples import llm_teacher
from docs.examples.llm_teacher import LanguageModel, main
from flows.cli.label_store import import_file
from flows.config import NightlyConfig
from recsys_core.artifacts import Artifact, publish
from tests.language_model import save_language_model

PROMPT = "chose : Thing 3 ; Thing 5 . Next"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["Thing", "chose", "Next", ":", ";", ".", *map(str, range(1, 17))]
    return save_language_model(tmp_path_factory.mktemp("model"), words)


@pytest.fixture
def workspace(obvious_world: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With prepared data; its item 1 has no title."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    folder = tmp_path / "workspace" / "stages" / "prepare" / "key"
    shutil.copytree(obvious_world.folder, folder)
    publish(Artifact("prepare", "key", folder), {}, {})
    return tmp_path / "workspace"


@pytest.fixture
def ask(workspace: Path, model_folder: Path, tmp_path: Path) -> Any:
    def run(*words: str) -> list[dict[str, Any]]:
        out = tmp_path / "labels.jsonl"
        places = ("--model", str(model_folder), "--out", str(out), "--workspace", str(workspace))
        main([*places, "--candidates", "6", "--history", "3", *words])
        return [json.loads(line) for line in out.read_text().splitlines()]

    return run


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_score_is_the_mean_log_likelihood_of_the_title(
    model_folder: Path, batch_size: int
) -> None:
    """Against one forward pass over prompt and title, without a cache and without padding."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    titles = ["Thing 7", "Thing 7 Thing 9 Thing 11", "16"]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).double().eval()
    expected: list[float] = []
    for title in titles:
        ids = tokenizer(f"{PROMPT} {title}", return_tensors="pt").input_ids
        with torch.inference_mode():
            log_likelihoods = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        of_next = log_likelihoods.gather(1, ids[0, 1:, None])[:, 0]
        expected.append(of_next[-len(title.split()) :].mean().item())
    found = LanguageModel(str(model_folder), "cpu").score(PROMPT, titles, batch_size)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) == 3


def test_every_user_gets_labels_that_the_import_takes(
    ask: Any, workspace: Path, tmp_path: Path
) -> None:
    rows = ask("--per-user", "2")
    assert len(rows) == 2 * 60
    histories = pl.read_parquet(workspace / "stages/prepare/key/histories/*.parquet")
    read = {user: events for user, events in histories.select("user_id", "item_idx").iter_rows()}
    for row in rows:
        had = {f"i{item}" for item in read[row["user_id"]][: row["n_events"]]}
        assert had.isdisjoint(row["item_ids"])
        assert "i1" not in row["item_ids"]
        assert len(row["item_ids"]) == 6
        assert row["scores"] == sorted(row["scores"], reverse=True)
    summary = import_file(
        NightlyConfig(workspace=workspace),
        tmp_path / "labels.jsonl",
        tmp_path / "store",
        teacher="a small one",
        trained_through=None,
        max_items=64,
    )
    assert (summary.labels, summary.dropped_rows, summary.dropped_items) == (120, {}, {})


def test_a_position_without_a_title_in_its_history_gets_no_label(
    ask: Any, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ask("--per-user", "20")
    histories = pl.read_parquet(workspace / "stages/prepare/key/histories/*.parquet")
    read = [
        events[:n]
        for events, end in histories.select("item_idx", "train_end").iter_rows()
        for n in range(1, end)
    ]
    untitled = read.count([1])
    assert untitled
    assert len(rows) == len(read) - untitled
    said = capsys.readouterr().out
    assert f"{len(rows):,} labels written to" in said
    assert f"which had 0 before. {untitled} positions were left out" in said


def test_without_any_title_no_model_is_loaded(
    ask: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace / "stages/prepare/key/items.parquet"
    items = pl.read_parquet(path).with_columns(title=pl.lit(None, pl.String))
    items.write_parquet(path)
    publish(Artifact("prepare", "key", path.parent), {}, {})
    monkeypatch.setattr(llm_teacher, "LanguageModel", None)
    with pytest.raises(SystemExit, match=r"No item in .*items\.parquet has a title"):
        ask()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--prompt", "And next?"), "it needs {history}"),
        (("--history", "0"), "0 is not positive"),
        (("--per-user", "-1"), "-1 is not positive"),
        (("--candidates", "0"), "0 is not positive"),
        (("--batch-size", "0"), "0 is not positive"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    ask: Any, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(SystemExit):
        ask(*words)
    assert reason in capsys.readouterr().err


def test_an_interrupted_run_asks_only_for_what_is_missing(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = ask()
    out = tmp_path / "labels.jsonl"
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:-3]) + b'{"user_id": "u')
    asked: list[str] = []
    score = LanguageModel.score

    def counted(model: LanguageModel, prompt: str, *rest: Any) -> list[float]:
        asked.append(prompt)
        return score(model, prompt, *rest)

    monkeypatch.setattr(LanguageModel, "score", counted)
    assert ask() == complete
    assert out.read_bytes() == whole
    assert len(asked) == 3
    with pytest.raises(SystemExit, match="begun with other settings"):
        ask("--prompt", "Another: {history}")


def test_ranks_can_be_written_alone(ask: Any) -> None:
    assert all("scores" not in row for row in ask("--ranks-only"))


def test_what_is_missing_is_said(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, elsewhere = str(tmp_path / "out.jsonl"), str(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="No night has prepared data"):
        main(["--model", str(model_folder), "--out", out, "--workspace", elsewhere])
    with pytest.raises(SystemExit, match="is no folder"):
        main(["--model", elsewhere, "--out", out])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert llm_teacher.__doc__
    assert "per token, in nats" in capsys.readouterr().out
