"""The baselines that the night's models are compared with."""

from collections.abc import Sequence

from recsys_core.data.histories.cases import Ranker
from recsys_core.evaluation.item_knn import item_knn_ranker, item_similarities
from recsys_core.evaluation.popularity import popularity_ranker
from recsys_core.training.validation import Validator
from tasks.training.prepared import Prepared

OWN_WEIGHTS = (0.0, 0.1, 1.0)
"""An item's similarity to itself; not 0 only where items may be recommended again."""

_CASES = 10_000


def baselines(data: Prepared) -> dict[str, Ranker]:
    """Popularity and item-kNN, by name.

    Where items may be recommended again, validation events choose item-kNN's weight of the items
    that a user had before; otherwise it would have none, and would be easy to beat.
    """
    recent, trained = (data.items[name].to_numpy() for name in ("recent_count", "train_count"))
    similarities = item_similarities(data.buckets, len(data.items))
    knns = [
        item_knn_ranker(similarities, recent, own_weight=weight)
        for weight in (OWN_WEIGHTS[:1] if data.exclude_seen else OWN_WEIGHTS)
    ]
    return {
        "popularity": popularity_ranker(recent, trained),
        "item_knn": knns[0] if len(knns) == 1 else _best(data.validator(_CASES), knns),
    }


def _best(validator: Validator, rankers: Sequence[Ranker]) -> Ranker:
    return max(rankers, key=lambda ranker: float(validator.by_user(ranker).mean()))
