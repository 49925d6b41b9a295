# pyright: basic
"""Titles read by a sentence-transformers model: a small one with random weights, made here."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from recsys_core.models.text_encoder import (
    TextEncoder,
    TextEncoderError,
    item_texts,
    text_vectors,
)

NONE_KNOWN = pl.DataFrame(schema={"text": pl.String, "vector": pl.List(pl.Float32)})


@pytest.fixture(scope="module")
def encoder(sentence_model: Path) -> TextEncoder:
    return TextEncoder(str(sentence_model))


def test_texts_become_vectors_of_length_1(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["starship one", "bunker two", "starship one"])
    assert vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_an_item_is_read_by_title_and_categories() -> None:
    items = pl.DataFrame(
        {
            "title": ["Starship", None, "Bunker", None, " "],
            "categories": [["space", "robots"], ["noir"], [], [], []],
        },
        schema_overrides={"categories": pl.List(pl.String)},
    )
    assert item_texts(items).to_list() == ["Starship. space, robots", "noir", "Bunker", None, None]


def test_known_texts_are_not_encoded_again(encoder: TextEncoder) -> None:
    known = pl.DataFrame({"text": ["bunker two"], "vector": [[1.0] * 16]}, schema=NONE_KNOWN.schema)
    texts = pl.Series(["starship one", None, "bunker two", "starship one"])
    vectors = text_vectors(texts, encoder, known).to_list()
    assert vectors[1] is None
    assert vectors[2] == [1.0] * 16
    assert vectors[0] == vectors[3]
    np.testing.assert_allclose(vectors[0], encoder.encode(["starship one"])[0], atol=1e-6)


def test_a_fingerprint_is_of_the_weights(
    encoder: TextEncoder, sentence_model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(sentence_model, tmp_path / "copy")
    assert TextEncoder(str(copy)).fingerprint() == encoder.fingerprint()
    weights = load_file(copy / "model.safetensors")
    changed = {name: tensor + 1 for name, tensor in weights.items()}
    save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
    assert TextEncoder(str(copy)).fingerprint() != encoder.fingerprint()


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TextEncoderError, match=r"empty' can't be loaded: .* Name a folder that"):
        TextEncoder(str(tmp_path / "empty"))
