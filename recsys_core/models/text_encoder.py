# pyright: basic
# (sentence-transformers is an optional extra)
"""Titles and categories as vectors of a sentence-transformers model (extra `recdistill[text]`)."""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys_core.settings import Progress, silent

_CHUNK = 4_096


class TextEncoderError(ValueError):
    """The text encoder can't be used."""


class TextEncoder:
    """A sentence-transformers model, loaded without running its code and without pickle.

    Args:
        name: A local folder, or a name on the hub; the model is downloaded once.
        device: "cpu" or "cuda".

    Raises:
        TextEncoderError: The extra is not installed, or there is no such model.

    Source: Reimers and Gurevych 2019, arXiv:1908.10084.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        if find_spec("sentence_transformers") is None:
            msg = "A text encoder needs the extra: pip install 'recdistill[text]'."
            raise TextEncoderError(msg)
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(
                name,
                device=device,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            msg = (
                f"The text encoder {name!r} can't be loaded: {reason} Name a folder that "
                "sentence-transformers saved with safetensors, or a model of the hub, which needs "
                "a network the first time."
            )
            raise TextEncoderError(msg) from error

    def fingerprint(self) -> str:
        """A hash of network and weights, wherever they were loaded from."""
        checksum = hashlib.sha256(str(self._model).encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            checksum.update(name.encode())
            checksum.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        return checksum.hexdigest()

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> NDArray[np.float32]:
        """Vectors of texts, `[n_texts, width]`, each of length 1."""
        chunks: list[NDArray[np.float32]] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = list(texts[start : start + _CHUNK])
            vectors = self._model.encode(
                chunk, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
            )
            chunks.append(np.asarray(vectors, np.float32))
            progress(min(1.0, (start + _CHUNK) / len(texts)), "texts of items")
        return np.concatenate(chunks)


def item_texts(items: pl.DataFrame) -> pl.Series:
    """The text of each item: its title, then its categories; null if there is neither.

    Args:
        items: `title` and `categories`.
    """
    categories = pl.col("categories").list.join(", ")
    text = pl.concat_str(
        "title", pl.when(categories != "").then(categories), separator=". ", ignore_nulls=True
    )
    return items.select(text=pl.when(text.str.strip_chars() != "").then(text))["text"]


def text_vectors(
    texts: pl.Series, encoder: TextEncoder, known: pl.DataFrame, progress: Progress = silent
) -> pl.Series:
    """A column of vectors; only texts without a known vector are encoded.

    Args:
        texts: Text of each item, by item_idx - 1; null for an item without text.
        encoder: The model.
        known: `text` (unique) and `vector`, encoded by the same model on an earlier night; may be
            empty.
        progress: Called after each chunk of texts.

    Returns:
        Lists of float32; null for a null text.
    """
    table = pl.DataFrame({"text": texts})
    unknown = table["text"].drop_nulls().unique(maintain_order=True)
    unknown = unknown.filter(~unknown.is_in(known["text"].implode()))
    vectors = known.select("text", "vector")
    if len(unknown):
        encoded = pl.Series("vector", encoder.encode(unknown.to_list(), progress))
        encoded = encoded.cast(pl.List(pl.Float32))
        vectors = pl.concat([vectors, pl.DataFrame({"text": unknown, "vector": encoded})])
    return table.join(vectors, on="text", how="left", maintain_order="left")["vector"]
