"""The scorer: string ids in, recommendations out, from a served model's folder.

Serving needs only this file, numpy and onnxruntime: the file is shipped as code with every
registered model and imports nothing of its own package.

The folder holds `model.onnx` (history → top-k, over compact rows 1 … n_items, 0 is padding),
`item_ids.json.bz2` (row - 1 → item id) and `config.json`. Folders of format 1 have `item_ids.json`.
"""

# onnxruntime has no type stubs: what it returns is annotated where it enters.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import bz2
import json
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import onnxruntime

FORMAT = 2
ID_FILES = {1: "item_ids.json", 2: "item_ids.json.bz2"}
"""The file of the item ids in each format that can be read."""
_MAX_BYTES_PER_ID = 1024
"""Bounds what the file of ids may unpack to."""
_BATCH_CELLS = 1 << 22
"""Most scores (batch × items) that are computed at once, about 16 MB."""
_MAX_BATCH = 256

IntRows = npt.NDArray[np.int64]


def open_session(path: Path, intra_op_num_threads: int = 0) -> Any:
    """The ONNX Runtime session of a served graph, on the CPU.

    Args:
        path: The `.onnx` file.
        intra_op_num_threads: Threads per computation; 0 lets ONNX Runtime decide.

    Raises:
        FileNotFoundError: There is no such file.
    """
    content = _read(path)
    options = cast(Any, onnxruntime.SessionOptions())
    options.intra_op_num_threads = intra_op_num_threads
    options.log_severity_level = 3
    # Linear layers are stored in 8 bits and unpacked once, here, not at each request.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def pad_rows(rows: Sequence[npt.NDArray[np.integer]]) -> IntRows:
    """One matrix of all rows, padded with 0 on the right, at least one column wide."""
    matrix = np.zeros(
        (len(rows), max(1, max((len(row) for row in rows), default=1))), dtype=np.int64
    )
    for place, row in enumerate(rows):
        matrix[place, : len(row)] = row
    return matrix


class Recommendation(NamedTuple):
    """The answer to one history.

    Attributes:
        item_ids: Best first.
        scores: Scores of the same items, in the same order.
        contributions: With `explain` only: for each recommended item, the known items of the
            history and the contribution of each to the score (the score minus the score without
            that item).
    """

    item_ids: list[str]
    scores: list[float]
    contributions: list[dict[str, float]] | None = None


class Scorer:
    """A served model.

    Args:
        folder: Folder with `model.onnx`, `item_ids.json.bz2` and `config.json`.
        intra_op_num_threads: Threads per computation; 0 lets ONNX Runtime decide.

    Raises:
        FileNotFoundError: One of the files is missing.
        ValueError: The files are damaged, do not belong together or have another format.
    """

    def __init__(self, folder: str | Path, *, intra_op_num_threads: int = 0) -> None:
        folder = Path(folder)
        self.config: dict[str, Any] = _read_json(folder / "config.json")
        if self.config.get("format") not in ID_FILES:
            msg = (
                f"{folder / 'config.json'} has format {self.config.get('format')!r}, expected one "
                f"of {sorted(ID_FILES)}: use the scorer that was shipped with the model."
            )
            raise ValueError(msg)
        self.max_length: int = self.config["max_length"]
        self._session = open_session(folder / "model.onnx", intra_op_num_threads)
        n_scores: int = self._session.get_outputs()[2].shape[1]
        self.item_ids = _read_item_ids(folder / ID_FILES[self.config["format"]], n_scores)
        if n_scores != len(self.item_ids):
            msg = (
                f"{folder} has {len(self.item_ids)} item ids for a graph that scores {n_scores} "
                f"items: the files come from different models."
            )
            raise ValueError(msg)
        self._row = {item_id: row for row, item_id in enumerate(self.item_ids, start=1)}

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool | None = None,
        exclude: Sequence[Sequence[str] | None] | None = None,
        allow: Sequence[Sequence[str] | None] | None = None,
        explain: bool = False,
    ) -> list[Recommendation]:
        """The best items for each history.

        Unknown ids are ignored everywhere. A history without a known item gets the cold-start
        answer: the most popular items.

        Args:
            histories: Item ids, oldest first, of any length; the newest `max_length` known ones
                count.
            k: Number of items; fewer are returned where fewer are left.
            exclude_seen: Leave out all items of the history, not only those of the window. None: as
                the model was trained. A model that was trained without them can't score them.
            exclude: For each history, items that are not recommended; None for none.
            allow: For each history, the only items that may be recommended; None for all, an empty
                list for no item.
            explain: Add contributions; costs one more score per history item.

        Raises:
            ValueError: An argument has the wrong type or length, k is below 1, or `exclude_seen` is
                off for a model that was trained to recommend new items only.
        """
        exclude_seen = self._checked_exclude_seen(exclude_seen)
        known = self._each_rows(histories, "history")
        barred = self._optional_rows(exclude, "exclude", len(known))
        allowed = self._optional_rows(allow, "allow", len(known))
        k = _checked_k(k, len(self.item_ids))
        excluded = [
            np.concatenate([seen if exclude_seen else _NO_ROWS, _NO_ROWS if bar is None else bar])
            for seen, bar in zip(known, barred, strict=True)
        ]
        answers = [Recommendation([], [])] * len(known)
        free = [index for index, rows in enumerate(allowed) if rows is None]
        for index, rows, scores in self._top(known, excluded, free, k):
            answers[index] = self._answer(rows, scores)
        limited = [(index, rows) for index, rows in enumerate(allowed) if rows is not None]
        for batch, scores in self._all_scores([known[index] for index, _ in limited]):
            for place, row_scores in zip(batch, scores, strict=True):
                index, rows = limited[place]
                rows = np.setdiff1d(rows, excluded[index])
                best = rows[np.argsort(-row_scores[rows - 1], kind="stable")[:k]]
                answers[index] = self._answer(best, row_scores[best - 1])
        if not explain:
            return answers
        return [
            answer._replace(contributions=self._contributions(rows, answer))
            for rows, answer in zip(known, answers, strict=True)
        ]

    def _checked_exclude_seen(self, asked: bool | None) -> bool:
        trained: bool = self.config["exclude_seen"]
        if trained and asked is False:
            msg = (
                "exclude_seen can't be false: this model was trained to recommend new items only, "
                "so its scores of items in the history mean nothing. Leave exclude_seen out, or "
                "train with prepare.exclude_seen = false."
            )
            raise ValueError(msg)
        return trained if asked is None else asked

    def scores(self, histories: Sequence[Sequence[str]]) -> npt.NDArray[np.float32]:
        """Scores of the whole catalogue, nothing excluded.

        Args:
            histories: As for `recommend`.

        Returns:
            [batch, n_items] in the order of `item_ids`.

        Raises:
            ValueError: A history is not a list of strings.
        """
        known = self._each_rows(histories, "history")
        result = np.empty((len(known), len(self.item_ids)), dtype=np.float32)
        for batch, scores in self._all_scores(known):
            result[batch] = scores
        return result

    def _top(
        self, known: Sequence[IntRows], excluded: Sequence[IntRows], indices: Sequence[int], k: int
    ) -> Iterator[tuple[int, IntRows, npt.NDArray[np.float32]]]:
        for batch in self._batches([known[index] for index in indices]):
            chosen = [indices[place] for place in batch]
            inputs = {
                "history": self._history_input([known[index] for index in chosen]),
                "exclude": pad_rows([excluded[index] for index in chosen]),
                "k": np.array([k], dtype=np.int64),
            }
            rows: IntRows
            scores: npt.NDArray[np.float32]
            rows, scores = self._session.run(["top_rows", "top_scores"], inputs)
            for index, row, score in zip(chosen, rows, scores, strict=True):
                kept = np.isfinite(score)
                yield index, row[kept], score[kept]

    def _all_scores(
        self, known: Sequence[IntRows]
    ) -> Iterator[tuple[list[int], npt.NDArray[np.float32]]]:
        for batch in self._batches(known):
            inputs = {
                "history": self._history_input([known[place] for place in batch]),
                "exclude": np.zeros((len(batch), 1), dtype=np.int64),
                "k": np.ones(1, dtype=np.int64),
            }
            yield batch, self._session.run(["scores"], inputs)[0]

    def _batches(self, known: Sequence[IntRows]) -> Iterator[list[int]]:
        """Batches of indices of histories with similar lengths, which keeps the padding short."""
        size = max(1, min(_MAX_BATCH, _BATCH_CELLS // len(self.item_ids)))
        order = sorted(range(len(known)), key=lambda place: len(known[place]))
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _history_input(self, known: Sequence[IntRows]) -> IntRows:
        return pad_rows([rows[-self.max_length :] for rows in known])

    def _answer(self, rows: IntRows, scores: npt.NDArray[np.float32]) -> Recommendation:
        return Recommendation([self.item_ids[row - 1] for row in rows], scores.tolist())

    def _contributions(self, known: IntRows, answer: Recommendation) -> list[dict[str, float]]:
        """For each recommended item, its score minus the score without each history item."""
        window = known[-self.max_length :]
        items = list(dict.fromkeys(window.tolist()))
        columns = [self._row[item_id] - 1 for item_id in answer.item_ids]
        variants = [window, *(window[window != item] for item in items)]
        scores = np.empty((len(variants), len(columns)), dtype=np.float32)
        for batch, batch_scores in self._all_scores(variants):
            scores[batch] = batch_scores[:, columns]
        added = scores[0] - scores[1:]
        return [
            {
                self.item_ids[item - 1]: float(value)
                for item, value in zip(items, values, strict=True)
            }
            for values in added.T
        ]

    def _each_rows(self, values: Any, name: str) -> list[IntRows]:
        if not _is_list(values):
            msg = f"{name} must be one list of item ids per input, found {_shown(values)}."
            raise ValueError(msg)
        return [self._rows(value, f"{name} of input {place}") for place, value in enumerate(values)]

    def _optional_rows(self, values: Any, name: str, length: int) -> list[IntRows | None]:
        if values is None:
            return [None] * length
        if not _is_list(values) or len(values) != length:
            msg = f"{name} must hold a list of item ids or None for each of {length} inputs."
            raise ValueError(msg)
        return [
            None if value is None else self._rows(value, f"{name} of input {place}")
            for place, value in enumerate(values)
        ]

    def _rows(self, item_ids: Any, name: str) -> IntRows:
        """Rows of the known ids, in their order."""
        if not _is_list(item_ids):
            msg = f"{name} must be a list of item ids (strings), found {_shown(item_ids)}."
            raise ValueError(msg)
        for item_id in item_ids:
            if not isinstance(item_id, str):
                msg = f"{name} holds {_shown(item_id)}; item ids are strings, as in '1193'."
                raise ValueError(msg)
        rows = [self._row[item_id] for item_id in item_ids if item_id in self._row]
        return np.array(rows, dtype=np.int64)


_NO_ROWS: IntRows = np.zeros(0, dtype=np.int64)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _checked_k(k: Any, n_items: int) -> int:
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        msg = f"k must be a whole number of at least 1, found {_shown(k)}."
        raise ValueError(msg)
    return min(int(k), n_items)


def _shown(value: object) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"


def _read_json(path: Path) -> Any:
    return json.loads(_read(path))


def _read_item_ids(path: Path, n_items: int) -> list[str]:
    content = _read(path)
    try:
        if path.suffix == ".bz2":
            content = _unpack(content, max_bytes=_MAX_BYTES_PER_ID * (n_items + 1))
        return json.loads(content)
    except (OSError, ValueError) as error:
        msg = f"{path} is damaged ({error}): fetch the model's folder again."
        raise ValueError(msg) from error


def _unpack(content: bytes, max_bytes: int) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    unpacked = unpacker.decompress(content, max_bytes)
    if not unpacker.eof:
        msg = f"it ends too early, or it unpacks to more than {max_bytes:,} bytes"
        raise ValueError(msg)
    return unpacked


def _read(path: Path) -> bytes:
    if not path.is_file():
        msg = f"{path} is missing: {path.parent} is not the folder of a served model."
        raise FileNotFoundError(msg)
    return path.read_bytes()
