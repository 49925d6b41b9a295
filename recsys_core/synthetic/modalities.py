"""Vectors of a synthetic world's items, like those that encoders of texts and images make.

The text vector depends on an item's category only, the image vector on its series only; both are
noisy, and some items lack them. So each helps with cold items, and both together help more.
"""

import numpy as np
import polars as pl

from recsys_core.data.schema import VECTOR
from recsys_core.synthetic.latent import FloatArray, Items, Purpose, WorldConfig, generator

MODALITIES = ("text", "image")
"""Names of the columns."""

_WIDTH = 16
_NOISE = 0.5
_MISSING = (0.2, 0.3)


def modality_vectors(config: WorldConfig, items: Items) -> pl.DataFrame:
    """One column of vectors per modality and one row per item; null where the item lacks it.

    The vectors of an item do not change when the world grows.
    """
    n_items = len(items.category)
    codes = (items.category, items.series.astype(np.int64) * config.n_categories + items.category)
    columns: dict[str, pl.Series] = {}
    for number, name in enumerate(MODALITIES):
        code, (meaning, noise, chance) = codes[number], _generators(config, number)
        means = meaning.standard_normal((int(code.max()) + 1, _WIDTH))
        vectors = means[code] + _NOISE * noise.standard_normal((n_items, _WIDTH))
        present = chance.random(n_items) >= _MISSING[number]
        columns[name] = _column(vectors, present)
    return pl.DataFrame(columns)


def _generators(config: WorldConfig, modality: int) -> list[np.random.Generator]:
    return [generator(config, Purpose.MODALITIES, 3 * modality + part) for part in range(3)]


def _column(
    vectors: FloatArray, present: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> pl.Series:
    rows = pl.Series(vectors.astype(np.float32)).arr.to_list().cast(VECTOR)
    chosen = pl.when(pl.Series(present)).then(rows)
    return pl.select(chosen).to_series()
