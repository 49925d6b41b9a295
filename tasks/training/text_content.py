"""Vectors of the items' texts by a sentence encoder; a night encodes only new texts."""

import os

import polars as pl

from recsys_core.artifacts import MANIFEST, is_finished
from recsys_core.models.text_encoder import TextEncoder, item_texts, text_vectors
from tasks.contracts.split import Split
from tasks.engine.stage import StageRun

SENTENCES = "sentences"
"""Name of the modality and of its column in `embeddings.parquet`."""

_NONE_KNOWN = pl.DataFrame(schema={"text": pl.String, "vector": pl.List(pl.Float32)})


def sentence_vectors(run: StageRun, name: str, items: pl.DataFrame) -> tuple[pl.Series, str]:
    """The items' vectors, and the encoder's fingerprint.

    Args:
        run: The run of the prepare stage; outputs of earlier nights lie beside its own.
        name: Folder or name of the model.
        items: `title` and `categories`, by item_idx.

    Raises:
        TextEncoderError: The model can't be used.
    """
    encoder = TextEncoder(name, run.device)
    fingerprint = encoder.fingerprint()
    texts, known = item_texts(items), _known(run, fingerprint)
    run.logger.info("Texts of items: %s are known from an earlier night", f"{len(known):,}")
    return text_vectors(texts, encoder, known, run.progress).alias(SENTENCES), fingerprint


def _known(run: StageRun, fingerprint: str) -> pl.DataFrame:
    """`text` and `vector` of the newest output by the same encoder."""
    manifests = run.out.parent.glob(f"*/{MANIFEST}")
    for manifest in sorted(manifests, key=os.path.getmtime, reverse=True):
        folder = manifest.parent
        split = Split.of_earlier(folder) if is_finished(folder) else None
        if split and split.text_encoder == fingerprint:
            vectors = pl.read_parquet(folder / "embeddings.parquet")[SENTENCES]
            texts = item_texts(pl.read_parquet(folder / "items.parquet"))
            return pl.DataFrame({"text": texts, "vector": vectors}).drop_nulls().unique("text")
    return _NONE_KNOWN
