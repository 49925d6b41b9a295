"""The vectors that a synthetic world gives its items."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from recsys_core.synthetic.latent import build_latent
from recsys_core.synthetic.modalities import MODALITIES, modality_vectors
from recsys_core.synthetic.world import WorldConfig, write_world

CONFIG = WorldConfig(n_users=20, n_items=400, n_categories=4, new_item_share=0.05, modalities=True)


def test_what_an_item_has_does_not_change_as_the_world_grows() -> None:
    young, old = (modality_vectors(CONFIG, build_latent(CONFIG, n).items) for n in (1, 10))
    assert len(old) > len(young) == 400
    assert old.head(400).equals(young)


def test_some_items_lack_a_modality() -> None:
    missing = modality_vectors(CONFIG, build_latent(CONFIG, 1).items).null_count().row(0)
    assert 0.1 < missing[0] / 400 < 0.3
    assert 0.2 < missing[1] / 400 < 0.4


def test_texts_tell_the_category_and_images_the_series() -> None:
    items = build_latent(CONFIG, 1).items
    vectors = modality_vectors(CONFIG, items).with_columns(
        category=pl.Series(items.category), series=pl.Series(items.series)
    )
    for name, groups in zip(MODALITIES, (["category"], ["category", "series"]), strict=True):
        known = vectors.drop_nulls(name)
        rows = np.stack(known[name].to_list())
        labels = known.select(groups).rows()
        nearest = _nearest_other(rows)
        alike = [labels[i] == labels[j] for i, j in enumerate(nearest)]
        assert np.mean(alike) > 0.8, name
    text = vectors.drop_nulls("text")
    series = text.select("category", "series").rows()
    same = [
        series[i] == series[j]
        for i, j in enumerate(_nearest_other(np.stack(text["text"].to_list())))
    ]
    assert np.mean(same) < 0.3  # a text says nothing about the series


def _nearest_other(rows: np.ndarray) -> list[int]:
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(axis=1).tolist()


def test_a_world_writes_them_where_asked(tmp_path: Path) -> None:
    for modalities in (True, False):
        folder = tmp_path / str(modalities)
        config = CONFIG.model_copy(update={"modalities": modalities})
        write_world(folder, config, first_day=date(2026, 1, 1), through=date(2026, 1, 2))
        columns = pl.read_parquet(folder / "items.parquet").columns
        assert (set(MODALITIES) <= set(columns)) is modalities
