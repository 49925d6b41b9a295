"""The baselines that the night's models are compared with."""

from recsys_core.data.histories.cases import Ranker
from recsys_core.evaluation.item_knn import item_knn_ranker, item_similarities
from recsys_core.evaluation.popularity import popularity_ranker
from tasks.training.prepared import Prepared


def baselines(data: Prepared) -> dict[str, Ranker]:
    """Popularity and item-kNN, by name."""
    recent, trained = (data.items[name].to_numpy() for name in ("recent_count", "train_count"))
    similarities = item_similarities(data.buckets, len(data.items))
    return {
        "popularity": popularity_ranker(recent, trained),
        "item_knn": item_knn_ranker(similarities, recent),
    }
