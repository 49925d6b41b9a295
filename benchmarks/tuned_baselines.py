"""Baselines at their best: popularity, item-kNN and EASE, tuned on validation events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, product

from recsys_core.data.catalogue.candidates import count_training_interactions
from recsys_core.data.histories.cases import Ranker
from recsys_core.evaluation.ease import CatalogueTooLargeError, PenaltyTooSmallError, ease_ranker
from recsys_core.evaluation.item_knn import item_knn_ranker, item_similarities
from recsys_core.evaluation.popularity import popularity_ranker
from recsys_core.training.validation import Validator
from tasks.training.baselines import OWN_WEIGHTS
from tasks.training.prepared import Prepared

Settings = Mapping[str, float | None]

DAYS = (1, 3, 7, 14, 30, 90, 365)
"""Windows of recent popularity; all training events are tried too."""
NEIGHBOURS = (50, 200)
SHRINKAGE = (0.05, 0.5, 5.0)
MEMORIES = ((20, 1.25), (20, 5.0), (100, 20.0))
"""Newest events of a history that count, and after how many events they count half."""
PENALTIES = (10.0, 50.0, 200.0, 1_000.0)

_CASES = 10_000


@dataclass(frozen=True)
class Tuned:
    """The best of a kind of baseline.

    Attributes:
        ranker: It ranks the catalogue.
        settings: What was chosen.
        ndcg_at_10: On the validation events that chose it, the mean over users.
    """

    ranker: Ranker
    settings: Settings
    ndcg_at_10: float


def tuned_baselines(data: Prepared, *, quick: bool = False) -> dict[str, Tuned]:
    """Each baseline with the settings that rank validation events best.

    Args:
        data: The prepared data.
        quick: Take the first settings of each.

    Returns:
        By name; EASE is missing where the catalogue is too large for it, or each penalty too
        small.
    """
    validator = data.validator(_CASES)
    families = {"popularity": _popularities(data), "item_knn": _knns(data), "ease": _eases(data)}
    best = {
        name: _best(validator, islice(family, 1) if quick else family)
        for name, family in families.items()
    }
    return {name: tuned for name, tuned in best.items() if tuned is not None}


def _best(validator: Validator, rankers: Iterator[tuple[Settings, Ranker]]) -> Tuned | None:
    best: Tuned | None = None
    for settings, ranker in rankers:
        ndcg = float(validator.by_user(ranker).mean())
        if best is None or ndcg > best.ndcg_at_10:
            best = Tuned(ranker, settings, ndcg)
    return best


def _popularities(data: Prepared) -> Iterator[tuple[Settings, Ranker]]:
    trained = data.items["train_count"].to_numpy()
    yield {"days": None}, popularity_ranker(trained)
    if data.split.validation_start is None:
        return
    end = datetime.fromisoformat(data.split.validation_start)
    for days in DAYS:
        counts = count_training_interactions(
            data.buckets, n_items=len(data.items), since=end - timedelta(days=days)
        )
        yield {"days": days}, popularity_ranker(counts["recent_count"].to_numpy(), trained)


def _knns(data: Prepared) -> Iterator[tuple[Settings, Ranker]]:
    popularity = data.items["recent_count"].to_numpy()
    own_weights = OWN_WEIGHTS[:1] if data.exclude_seen else OWN_WEIGHTS
    for n_neighbours, shrinkage in product(NEIGHBOURS, SHRINKAGE):
        similarities = item_similarities(
            data.buckets, len(data.items), n_neighbours=n_neighbours, shrinkage=shrinkage
        )
        for (n_recent, half_life), own_weight in product(MEMORIES, own_weights):
            context = {"n_recent": n_recent, "half_life": half_life, "own_weight": own_weight}
            yield (
                {"n_neighbours": n_neighbours, "shrinkage": shrinkage, **context},
                item_knn_ranker(
                    similarities,
                    popularity,
                    n_recent=n_recent,
                    half_life=half_life,
                    own_weight=own_weight,
                ),
            )


def _eases(data: Prepared) -> Iterator[tuple[Settings, Ranker]]:
    popularity = data.items["recent_count"].to_numpy()
    for l2 in PENALTIES:
        try:
            yield {"l2": l2}, ease_ranker(data.buckets, popularity, l2=l2)
        except PenaltyTooSmallError as error:
            print(error)
        except CatalogueTooLargeError as error:
            print(error)
            return
