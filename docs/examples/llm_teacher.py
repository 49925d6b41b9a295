# pyright: basic
# (transformers is an optional extra)
"""Ask a language model on this machine which items a user wants next, and write soft labels.

For the newest training positions of each user, item-kNN proposes candidates that may be recommended
then. The model scores each by the log-likelihood of its title after a prompt with the titles of the
history. The score is the mean per token, in nats: the sum would prefer short titles. A position
without a title in its history gets no label.

    pip install "recdistill[text]"
    python docs/examples/llm_teacher.py --model ~/models/some-llm --out labels.jsonl
    recdistill soft-labels import labels.jsonl --out labels --teacher some-llm

It reads the histories of the newest night in the workspace. If the lake holds hashed user ids, so
does the file: import it with --hashed. The model is a folder that transformers
saved with safetensors: nothing is downloaded, no code of the model is run, and nothing is reported
to anybody. An interrupted run continues where it stopped if it is started again.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from rich.progress import track

from recsys_core.artifacts import MANIFEST, is_finished, read_json, write_json
from recsys_core.evaluation.item_knn import item_knn_ranker, item_similarities

PROMPT = "A user chose, oldest first: {history}. Next, the same user chose:"

Propose = Callable[[list[int]], list[int]]
"""Candidates after a history; both are item_idx."""


@dataclass(frozen=True)
class Settings:
    """What decides the answers; labels of different settings don't belong in one file.

    Attributes:
        model: Folder of the language model.
        prompt: Its `{history}` becomes the titles.
        history: Newest items of a history that the prompt names.
        candidates: Items that the model scores for each label.
        prepared: Folder of the night's data.
        ranks_only: Write no scores.
    """

    model: str
    prompt: str
    history: int
    candidates: int
    prepared: str
    ranks_only: bool


class LanguageModel:
    """A causal language model, loaded from a folder.

    Args:
        folder: Saved by transformers, with its tokenizer.
        device: "cpu" or "cuda".
    """

    def __init__(self, folder: str, device: str) -> None:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        from transformers import AutoModelForCausalLM, AutoTokenizer

        offline = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype="auto", **offline
        )
        self._model = model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def score(self, prompt: str, titles: Sequence[str], batch_size: int) -> list[float]:
        """Mean log-likelihood per token of each title after the prompt, in nats.

        The prompt is read once; its keys and values serve all titles.
        """
        read = self._tokenizer(prompt, return_tensors="pt").input_ids.to(self._device)
        after_prompt = self._model(input_ids=read, use_cache=True)
        scores: list[float] = []
        for start in range(0, len(titles), batch_size):
            texts = [f" {title}" for title in titles[start : start + batch_size]]
            tokens = self._tokenizer(texts, add_special_tokens=False).input_ids
            scores += self._score_batch(read.shape[1], after_prompt, tokens)
        return scores

    def _score_batch(self, n_read: int, after_prompt: Any, tokens: list[list[int]]) -> list[float]:
        lengths = torch.tensor([len(row) for row in tokens], device=self._device)
        rows = [torch.tensor(row, device=self._device) for row in tokens]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(padded.shape[1], device=self._device) < lengths[:, None]
        name = "cache" if "cache" in after_prompt else "past_key_values"  # by release
        cache = copy.deepcopy(after_prompt[name])
        cache.batch_repeat_interleave(len(tokens))
        of_prompt = torch.ones(len(tokens), n_read, dtype=torch.long, device=self._device)
        logits = self._model(
            input_ids=padded,
            attention_mask=torch.cat([of_prompt, mask.long()], dim=1),
            **{name: cache},
        ).logits
        first = after_prompt.logits[:, -1:].expand(len(tokens), -1, -1)
        before = torch.cat([first, logits[:, :-1]], dim=1).float()
        log_likelihoods = before.log_softmax(-1).gather(2, padded[..., None])[..., 0]
        means = (log_likelihoods * mask).sum(1) / lengths
        return means.tolist()


class Catalogue:
    """Ids and titles by item_idx; an item without a title has no words to ask for."""

    def __init__(self, prepared: Path) -> None:
        items = pl.read_parquet(prepared / "items.parquet").sort("item_idx")
        self.ids = ["", *items["item_id"]]
        self.titles = ["", *items["title"].fill_null("").str.strip_chars()]
        self.recent_count = items["recent_count"].to_numpy()
        self.has_title = np.array([bool(title) for title in self.titles])

    def titled(self, items: Sequence[int]) -> list[int]:
        """Those of the items that have a title."""
        return [item for item in items if self.has_title[item]]


def questions(buckets: Sequence[Path], per_user: int) -> Iterator[tuple[str, list[int]]]:
    """User and the item_idx read so far, of each user's newest positions with a next event."""
    for bucket in buckets:
        users = pl.read_parquet(bucket, columns=["user_id", "item_idx", "train_end"])
        for user_id, events, end in users.iter_rows():
            for n_events in range(end - 1, max(0, end - 1 - per_user), -1):
                yield user_id, events[:n_events]


def proposals(prepared: Path, buckets: Sequence[Path], catalogue: Catalogue, n: int) -> Propose:
    """The n best items of item-kNN that have a title and may be recommended after a history."""
    rank = item_knn_ranker(
        item_similarities(buckets, len(catalogue.ids) - 1), catalogue.recent_count
    )
    exclude_seen = read_json(prepared / "split.json")["exclude_seen"]

    def propose(read: list[int]) -> list[int]:
        scores: NDArray[np.float32] = rank([np.array(read, np.int32)])[0]
        allowed = catalogue.has_title.copy()
        allowed[read] &= not exclude_seen
        best = np.argsort(-scores, kind="stable")
        return best[allowed[best]][:n].tolist()

    return propose


def label(
    model: LanguageModel,
    settings: Settings,
    catalogue: Catalogue,
    read: list[int],
    candidates: list[int],
    *,
    batch_size: int,
) -> dict[str, Any]:
    """The candidates, best first, as a row of the label file without its user."""
    known = [catalogue.titles[item] for item in catalogue.titled(read)]
    prompt = settings.prompt.replace("{history}", "; ".join(known[-settings.history :]))
    scores = model.score(prompt, [catalogue.titles[item] for item in candidates], batch_size)
    ranked = sorted(zip(scores, candidates, strict=True), key=lambda pair: -pair[0])
    row = {
        "n_events": len(read),
        "last_item_id": catalogue.ids[read[-1]],
        "item_ids": [catalogue.ids[item] for _, item in ranked],
    }
    return (
        row if settings.ranks_only else row | {"scores": [round(score, 4) for score, _ in ranked]}
    )


def resume(out: Path, settings: Settings) -> set[tuple[str, int]]:
    """Users and numbers of events that the file answers; a line that was cut off is removed.

    Raises:
        SystemExit: The file was begun with other settings.
    """
    record = out.with_name(f"{out.name}.settings.json")
    if not out.exists():
        write_json(record, asdict(settings))
        return set()
    begun = read_json(record) if record.exists() else None
    if begun != asdict(settings):
        sys.exit(f"{out} was begun with other settings ({begun}). Name another file, or delete it.")
    with out.open("r+b") as file:
        lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        file.truncate(len(whole))
    rows = map(json.loads, whole.splitlines())
    return {(row["user_id"], row["n_events"]) for row in rows}


def newest_prepared(workspace: Path) -> Path:
    """The data of the newest night.

    Raises:
        SystemExit: No night has prepared any.
    """
    folders = [path.parent for path in workspace.glob(f"stages/prepare/*/{MANIFEST}")]
    newest = max(filter(is_finished, folders), key=os.path.getmtime, default=None)
    if newest is None:
        sys.exit(f"No night has prepared data in {workspace}: run `recdistill nightly` first.")
    return newest


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        msg = f"{number} is not positive"
        raise argparse.ArgumentTypeError(msg)
    return number


def prompt_of(text: str) -> str:
    """A prompt with a place for the history."""
    if "{history}" not in text:
        msg = "it needs {history}, which becomes the titles"
        raise argparse.ArgumentTypeError(msg)
    return text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of the language model")
    parser.add_argument("--out", type=Path, required=True, help="file to write: JSON lines")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--per-user", type=positive, default=1, help="newest positions to label")
    parser.add_argument(
        "--candidates", type=positive, default=50, help="items scored for each label"
    )
    parser.add_argument("--history", type=positive, default=20, help="newest titles in the prompt")
    parser.add_argument(
        "--prompt", type=prompt_of, default=PROMPT, help="its {history} becomes the titles"
    )
    parser.add_argument("--ranks-only", action="store_true", help="write no scores")
    parser.add_argument("--batch-size", type=positive, default=25, help="titles scored at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the label file."""
    options = parser().parse_args(arguments)
    if not Path(options.model).is_dir():
        sys.exit(f"{options.model} is no folder: name one that transformers saved a model in.")
    prepared = newest_prepared(options.workspace)
    settings = Settings(
        model=options.model,
        prompt=options.prompt,
        history=options.history,
        candidates=options.candidates,
        prepared=str(prepared),
        ranks_only=options.ranks_only,
    )
    catalogue = Catalogue(prepared)
    if not catalogue.has_title.any():
        sys.exit(f"No item in {prepared / 'items.parquet'} has a title to ask the model for.")
    done = resume(options.out, settings)
    buckets = sorted((prepared / "histories").glob("bucket-*.parquet"))
    propose = proposals(prepared, buckets, catalogue, options.candidates)
    model = LanguageModel(options.model, options.device)
    asked = [
        one for one in questions(buckets, options.per_user) if (one[0], len(one[1])) not in done
    ]
    written = 0
    with options.out.open("a", encoding="utf-8") as out:
        for user_id, read in track(asked, "Asking the model"):
            if catalogue.titled(read) and (candidates := propose(read)):
                row = label(
                    model, settings, catalogue, read, candidates, batch_size=options.batch_size
                )
                out.write(json.dumps({"user_id": user_id} | row) + "\n")
                out.flush()
                written += 1
    print(  # noqa: T201 - the program's answer
        f"{written:,} labels written to {options.out}, which had {len(done):,} before. "
        f"{len(asked) - written:,} positions were left out: no title in the history, or nothing "
        "to recommend."
    )


if __name__ == "__main__":
    main()
