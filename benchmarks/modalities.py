"""Ablation of content modalities on a synthetic world with texts and images.

    python -m benchmarks.modalities [--epochs N]

The text vector depends on an item's category, the image vector on its series; both are noisy, and
some items lack them (see recsys_core/synthetic/modalities.py). Networks with none, one or both of
them are trained without 5 % of the items. They rank each user's first event with a hidden item, and
the usual validation events.
"""

from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.cold_items import K, cold_cases, hidden_items, recall, without
from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

SUBSETS: dict[str, tuple[str, ...]] = {
    "ids only": (),
    "text": ("text",),
    "image": ("image",),
    "text and image": ("text", "image"),
}


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("workspace/modalities"))
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.networks import trained, varied, with_cold_items
    from benchmarks.prepared import prepared_artifact, synthetic_night
    from tasks.training.prepared import Prepared

    world = {"modalities": True} | ({"n_users": 300, "n_items": 200} if args.quick else {})
    config = synthetic_night(args.workspace, world)
    original = prepared_artifact(config)
    hidden = hidden_items(Prepared(original))
    reduced = without(original, hidden, args.workspace / "hidden")
    cold = cold_cases(Prepared(original), hidden)
    vectors = pl.read_parquet(original.file("embeddings.parquet"))
    epochs = 1 if args.quick else args.epochs
    rows: list[list[object]] = []
    figures: dict[str, Any] = {"hidden_items": len(hidden), "cold_cases": len(cold)}
    for name, columns in SUBSETS.items():
        vectors.select("item_idx", *columns).write_parquet(reduced.file("embeddings.parquet"))
        data = Prepared(reduced)
        network = varied(config.teacher, epochs, {"content_features": 0})
        model = with_cold_items(trained(data, network, args.workspace / name), data, network)
        cold_recall, warm = recall(data, cold, model), data.validator(1_000_000)(model)
        rows.append([name, cold_recall, warm])
        figures[name] = {"cold_recall_at_50": cold_recall, "warm_ndcg_at_10": warm}
    finish("modalities", ["content", f"cold recall@{K}", "warm NDCG@10"], rows, figures, args.out)


if __name__ == "__main__":
    main()
