"""A synthetic world with a known truth: event files, and the exact law behind them.

`write_world` writes or extends the files. `World` opens them and gives the true distribution of the
next item, and so the score of the best possible ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.artifacts import read_json, replacing, write_json
from recsys_core.settings import Progress, silent
from recsys_core.synthetic.catalogue import item_ids, item_table, user_ids
from recsys_core.synthetic.events import Day, DayEvents, attempt_probabilities, simulate
from recsys_core.synthetic.latent import (
    FloatArray,
    IntArray,
    Latent,
    WorldConfig,
    build_latent,
)
from recsys_core.synthetic.modalities import modality_vectors

__all__ = ["World", "WorldConfig", "bayes_ndcg_at_k", "write_world"]

_WORLD = "world.json"


def write_world(
    folder: Path,
    config: WorldConfig,
    *,
    first_day: date,
    through: date,
    progress: Progress = silent,
) -> None:
    """Write a world as event files, or add the missing days to an existing one.

    Writes `interactions/YYYY-MM-DD.parquet` (user_id, item_id, timestamp, event_type; by time),
    `items.parquet` (item_id, title, categories, available_from, vectors if configured; the items
    available on the last day) and `world.json`. A later call with a later `through` adds days and
    keeps the earlier ones; a call after a kill adds the missing ones.

    Args:
        folder: Folder to write to.
        config: Laws of the world.
        first_day: First day; ignored if the folder holds a world.
        through: Last day.
        progress: Called after each day.

    Raises:
        ValueError: `through` is before the first day, or the folder holds another world.
    """
    first_day, through = _claim(folder, config, first_day, through)
    n_days = (through - first_day).days + 1
    dates = [first_day + timedelta(days=day) for day in range(n_days)]
    missing = [day for day in range(n_days) if not _day_file(folder, dates[day]).exists()]
    latent = build_latent(config, n_days)
    table = item_table(latent.items, first_day)
    if config.modalities:
        table = table.hstack(modality_vectors(config, latent.items))
    _write_parquet(table, folder / "items.parquet")
    if missing:
        for events in simulate(config, latent, missing[-1] + 1):
            if events.day in missing:
                table = _event_table(events, dates[events.day])
                _write_parquet(table, _day_file(folder, dates[events.day]))
            progress((events.day + 1) / (missing[-1] + 1), f"day {dates[events.day]}")
    _write_world_file(folder, config, first_day, through)


def bayes_ndcg_at_k(probabilities: FloatArray, k: int = 10) -> FloatArray:
    """Expected NDCG@k of ranking by the true probabilities, with one relevant item.

    No ranker that knows only the user, the history and the day has a higher expected value.

    >>> bayes_ndcg_at_k(np.array([[0.75, 0.0, 0.25]]), k=1).tolist()
    [0.75]

    Args:
        probabilities: `[batch, n_items]` true probabilities of the next item.
        k: Length of the recommended list.

    Returns:
        `[batch]`, between 0 and 1.
    """
    k = min(k, probabilities.shape[1])
    top = -np.sort(np.partition(-probabilities, k - 1, axis=1)[:, :k], axis=1)
    return top @ (1 / np.log2(np.arange(2, k + 2)))


@dataclass(frozen=True)
class World:
    """The truth behind a written world.

    Attributes:
        config: Laws of the world.
        first_day: First day.
        through: Last day.
        latent: Hidden state of the world.
        item_ids: All items in order of arrival.
    """

    config: WorldConfig
    first_day: date
    through: date
    latent: Latent
    item_ids: list[str]

    @classmethod
    def open(cls, folder: Path) -> "World":
        """Open what `write_world` wrote.

        Raises:
            FileNotFoundError: There is no finished world in the folder.
        """
        facts = _read_world_file(folder)
        if facts is None or facts["through"] is None:
            msg = f"{folder} holds no finished synthetic world; write one with write_world first."
            raise FileNotFoundError(msg)
        config = WorldConfig(**facts["config"])
        first_day = date.fromisoformat(facts["first_day"])
        through = date.fromisoformat(facts["through"])
        latent = build_latent(config, (through - first_day).days + 1)
        ids = item_ids(np.arange(len(latent.items.category))).to_list()
        return cls(config, first_day, through, latent, ids)

    def next_item_probabilities(
        self,
        user_ids: Sequence[str],
        histories: Sequence[Sequence[str]],
        days: Sequence[date],
    ) -> tuple[list[str], FloatArray]:
        """True probabilities of the next item, given that there is a next event.

        Args:
            user_ids: User of each case.
            histories: All items of each user before the event, oldest first.
            days: Day of the next event.

        Returns:
            The item ids of the columns and `[batch, n_items]` probabilities. Rows sum to 1. Items
            that are not available yet have 0, and so have the items of the history, unless repeats
            are allowed. A row is all 0 if no item is left.

        Raises:
            ValueError: Unequal lengths, an unknown id, or a day outside the world.
        """
        if not len(user_ids) == len(histories) == len(days):
            msg = (
                "Each case needs a user, a history and a day, but there are "
                f"{len(user_ids)} users, {len(histories)} histories and {len(days)} days."
            )
            raise ValueError(msg)
        users = self._numbers(user_ids, "u", len(self.latent.users.activity))
        flat = self._numbers(list(chain.from_iterable(histories)), "i", len(self.item_ids))
        lengths = np.array([len(history) for history in histories], np.int64)
        day_numbers = np.array([self._day_number(day) for day in days], np.int64)
        last, before_last = _last_two(flat, lengths)
        probabilities = np.zeros((len(users), len(self.item_ids)))
        for day in np.unique(day_numbers):
            rows = np.flatnonzero(day_numbers == day)
            law = attempt_probabilities(
                Day.open(self.config, self.latent, int(day)),
                users[rows],
                last[rows],
                before_last[rows],
            )
            probabilities[rows, : law.shape[1]] = law
        if not self.config.allow_repeats:
            probabilities[np.repeat(np.arange(len(users)), lengths), flat] = 0
        total = probabilities.sum(axis=1, keepdims=True)
        return self.item_ids, np.divide(probabilities, total, out=probabilities, where=total > 0)

    def _day_number(self, day: date) -> int:
        if not self.first_day <= day <= self.through:
            msg = (
                f"The world lasts from {self.first_day} through {self.through}, which excludes "
                f"{day}; extend it with write_world."
            )
            raise ValueError(msg)
        return (day - self.first_day).days

    @staticmethod
    def _numbers(ids: Sequence[str], prefix: str, n: int) -> NDArray[np.int64]:
        texts = pl.Series(ids, dtype=pl.String)
        numbers = texts.str.strip_prefix(prefix).cast(pl.Int64, strict=False)
        form = texts.str.contains(rf"^{prefix}(\d{{6}}|[1-9]\d{{6,}})$")
        known = (form & (numbers < n)).fill_null(value=False)
        if not known.all():
            msg = (
                f"{texts.filter(~known)[0]!r} is no id of this world; expected one from "
                f"{prefix}{0:06d} to {prefix}{n - 1:06d}."
            )
            raise ValueError(msg)
        return numbers.to_numpy()


def _last_two(flat: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Last item and the one before (the last where it is the only one); -1 without a history."""
    padded = np.concatenate(([-1, -1], flat))
    ends = np.cumsum(lengths) + 2
    last = np.where(lengths > 0, padded[ends - 1], -1)
    return last, np.where(lengths > 1, padded[ends - 2], last)


def _claim(folder: Path, config: WorldConfig, first_day: date, through: date) -> tuple[date, date]:
    """First and last day of the world in the folder; marks the folder as this world's."""
    facts = _read_world_file(folder)
    finished: date | None = None
    if facts is not None:
        _check_same_world(folder, facts["config"], config)
        first_day = date.fromisoformat(facts["first_day"])
        finished = date.fromisoformat(facts["through"]) if facts["through"] else None
    if through < first_day:
        msg = (
            f"The world in {folder} begins on {first_day}, so it cannot end on {through}; "
            "ask for a later `through`."
        )
        raise ValueError(msg)
    _write_world_file(folder, config, first_day, finished)
    return first_day, max(through, finished or through)


def _check_same_world(folder: Path, recorded: dict[str, Any], config: WorldConfig) -> None:
    wanted = config.model_dump(mode="json")
    recorded = WorldConfig().model_dump(mode="json") | recorded  # by a version with fewer laws
    for name in sorted(recorded.keys() | wanted.keys()):
        if recorded.get(name) != wanted.get(name):
            msg = (
                f"{folder} holds a world with {name} = {recorded.get(name)}, not "
                f"{wanted.get(name)}, and a world's laws cannot change. Use another folder or "
                f"delete this one, or set {name} back."
            )
            raise ValueError(msg)


def _read_world_file(folder: Path) -> dict[str, Any] | None:
    path = folder / _WORLD
    return read_json(path) if path.exists() else None


def _write_world_file(
    folder: Path, config: WorldConfig, first_day: date, through: date | None
) -> None:
    """`through` is the last day up to which all files are there, None while there is none."""
    facts = {
        "config": config.model_dump(mode="json"),
        "first_day": first_day.isoformat(),
        "through": through.isoformat() if through else None,
    }
    write_json(folder / _WORLD, facts)


def _day_file(folder: Path, day: date) -> Path:
    return folder / "interactions" / f"{day.isoformat()}.parquet"


def _event_table(events: DayEvents, day: date) -> pl.DataFrame:
    midnight = pl.lit(day).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "user_id": user_ids(events.user),
            "item_id": item_ids(events.item),
            "timestamp": pl.Series(events.microsecond).cast(pl.Duration("us")),
            "event_type": pl.Series(events.purchase),
        }
    ).with_columns(
        timestamp=midnight + pl.col("timestamp"),
        event_type=pl.when("event_type").then(pl.lit("purchase")).otherwise(pl.lit("click")),
    )


def _write_parquet(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        table.write_parquet(draft, compression="zstd")
