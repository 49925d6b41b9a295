"""Readable ids, titles and categories of a synthetic world's items.

A title is category word + series name + number ("Starship Velkora 3"), so the text alone gives the
category and the series of an item.
"""

from datetime import date

import numpy as np
import polars as pl

from recsys_core.data.schema import MICROSECONDS_PER_DAY
from recsys_core.synthetic.latent import FAMILY_SIZE, IntArray, Items

_FAMILIES = ("science fiction", "crime", "adventure", "romance")
_CATEGORIES = (
    ("space opera", "Starship"),
    ("time travel", "Paradox"),
    ("robots", "Android"),
    ("dystopia", "Bunker"),
    ("detectives", "Inspector"),
    ("heists", "Vault"),
    ("courtroom", "Verdict"),
    ("noir", "Shadow"),
    ("pirates", "Corsair"),
    ("mountains", "Summit"),
    ("jungle", "Temple"),
    ("deep sea", "Abyss"),
    ("royalty", "Crown"),
    ("small towns", "Harbour"),
    ("letters", "Letter"),
    ("weddings", "Promise"),
)
_FIRST = tuple("Vel Kor Tas Mir Dra Lun Sel Bar Fen Gal Hir Jas Nor Oph Per Qui".split())
_MIDDLE = tuple("ka mo ri ta le vi so nu da he po zi ga lo be tu".split())
_LAST = tuple("ra dan lis mon thea var nix ros lund wyn met sol den kai ria bel".split())
_SCRAMBLE = 2_741  # odd, so that multiplying permutes the names: neighbours look unlike


def user_ids(users: IntArray) -> pl.Series:
    """Ids of users by number: "u000123"."""
    return _ids("u", users).alias("user_id")


def item_ids(items: IntArray) -> pl.Series:
    """Ids of items by number: "i000045"."""
    return _ids("i", items).alias("item_id")


def item_table(items: Items, first_day: date) -> pl.DataFrame:
    """The catalogue: item_id, title, categories (own and family), available_from."""
    n_items = len(items.category)
    n_categories = int(items.category.max()) + 1
    lists = pl.Series([category_names(category) for category in range(n_categories)])
    words = pl.Series([_numbered(category, 1) for category in range(n_categories)])
    series = items.series.astype(np.int64) * n_categories + items.category
    available_from = pl.Series(items.release_day).cast(pl.Int64) * MICROSECONDS_PER_DAY
    start = pl.lit(first_day).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"item_id": item_ids(np.arange(n_items))}).with_columns(
        title=pl.concat_str(
            words.gather(items.category),
            _series_names(series),
            pl.Series(items.number + 1).cast(pl.String),
            separator=" ",
        ),
        categories=lists.gather(items.category),
        available_from=start + available_from.cast(pl.Duration("us")),
    )


def category_names(category: int) -> list[str]:
    """The `categories` of an item: its own category, then the family of that category."""
    family = category // FAMILY_SIZE
    turn = family // len(_FAMILIES)
    name = _FAMILIES[family % len(_FAMILIES)]
    return [_numbered(category, 0), f"{name} {turn + 1}" if turn else name]


def _numbered(category: int, part: int) -> str:
    """A category's name (0) or title word (1), numbered where there are more than words."""
    turn, place = divmod(category, len(_CATEGORIES))
    word = _CATEGORIES[place][part]
    return f"{word} {turn + 1}" if turn else word


def _series_names(series: IntArray) -> pl.Expr:
    """Names by number, all different for as many as there are combinations of syllables."""
    size = len(_FIRST)
    code = series * _SCRAMBLE % size**3
    return pl.concat_str(
        pl.Series(_FIRST).gather(code // size**2),
        pl.Series(_MIDDLE).gather(code // size % size),
        pl.Series(_LAST).gather(code % size),
    )


def _ids(prefix: str, numbers: IntArray) -> pl.Series:
    return prefix + pl.Series(numbers).cast(pl.String).str.zfill(6)
