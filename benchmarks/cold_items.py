"""Recall of cold items: how well content replaces training events.

    python -m benchmarks.cold_items [--config FILE.toml] [--data DIR] [--epochs N]

Hides 5 % of the items from training, histories and validation, and trains networks on the rest. The
test cases are each user's first event with a hidden item, ranked in the full catalogue: recall@50.
For comparison, the hidden items of the same network get random vectors. In the validation of the
known items, hidden items are candidates but never targets. Without a configuration the synthetic
world is used. The student of the network that a night would make is measured too.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from torch import Tensor

    from recsys_core.data.histories.cases import Cases
    from recsys_core.models.recommender import Recommender
    from tasks.training.prepared import Prepared

HIDDEN_SHARE = 0.05
K = 50
SEED = 5


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, help="TOML file; default: the synthetic world")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/cold-items"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--id-dropout", type=float, default=0.1, help="id_dropout of the third network"
    )
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.networks import distilled, trained, varied, with_cold_items
    from benchmarks.prepared import prepared_artifact, synthetic_night
    from flows.config import load_config
    from tasks.training.prepared import Prepared

    config = (
        load_config(args.config, data=args.data).model_copy(update={"workspace": args.workspace})
        if args.config
        else synthetic_night(args.workspace)
    )
    original = prepared_artifact(config)
    hidden = hidden_items(Prepared(original))
    rest = without(original, hidden, args.workspace / "hidden")
    data = Prepared(rest)
    cold = cold_cases(Prepared(original), hidden)
    epochs = 1 if args.quick else args.epochs
    dropped = f"{args.id_dropout:.0%} of ids dropped in training"
    variants: dict[str, dict[str, Any]] = {
        "ids only": {"content_features": 0},
        "content": {},
        dropped: {"id_dropout": args.id_dropout},
    }
    rows: list[list[object]] = []
    figures: dict[str, Any] = {"hidden_items": len(hidden), "cold_cases": len(cold)}
    for name, changes in variants.items():
        network = varied(config.teacher, epochs, changes)
        model = trained(data, network, args.workspace / name)
        networks = [(name, model)]
        if model.content is not None:
            fitted = with_cold_items(copy.deepcopy(model), data, network)
            networks.append((f"{name}, then fitted", fitted))
            if not changes:
                student = distilled(rest, fitted, config, args.workspace / "student", epochs)
                networks.append(("its student", student))
        for title, network_model in networks:
            figures[title] = compared(data, cold, network_model, hidden)
            rows.append([title, *figures[title].values()])
    columns = ["network", f"cold recall@{K}", "random vectors", "ratio"]
    columns += ["known NDCG@10", "with random vectors"]
    finish("cold_items", columns, rows, figures, args.out)


def hidden_items(data: "Prepared") -> NDArray[np.int32]:
    """A random share of the items that occur in training, by item_idx."""
    occurring = data.items.filter(pl.col("train_count") > 0)["item_idx"].to_numpy()
    chosen = np.random.default_rng(SEED).permutation(occurring)
    return np.sort(chosen[: round(HIDDEN_SHARE * len(occurring))])


def without(original: Any, hidden: NDArray[np.int32], folder: Path) -> Any:
    """The prepared data without any event of the hidden items."""
    from recsys_core.artifacts import Artifact

    (folder / "histories").mkdir(parents=True, exist_ok=True)
    lists = ["item_idx", "timestamp", "event_type", "target_weight"]
    gone = pl.col("item_idx").is_in(hidden.tolist())
    for path in original.file("histories").glob("bucket-*.parquet"):
        users = pl.read_parquet(path)
        events = (
            users.explode(*lists)
            .with_columns(position=pl.int_range(pl.len()).over("user_id"))
            .filter(~gone)
        )
        kept = events.group_by("user_id", maintain_order=True).agg(
            *lists,
            train_end=(pl.col("position") < pl.col("train_end")).sum().cast(pl.Int32),
            validation_end=(pl.col("position") < pl.col("validation_end")).sum().cast(pl.Int32),
        )
        kept.select(users.columns).write_parquet(folder / "histories" / path.name)
    is_hidden = pl.col("item_idx").is_in(hidden.tolist())
    counts = ("train_count", "recent_count")
    items = pl.read_parquet(original.file("items.parquet")).with_columns(
        pl.when(is_hidden).then(0).otherwise(pl.col(name)).alias(name) for name in counts
    )
    items.write_parquet(folder / "items.parquet")
    for name in ("embeddings.parquet", "split.json"):
        (folder / name).write_bytes(original.file(name).read_bytes())
    return Artifact("prepare", "hidden", folder)


def cold_cases(data: "Prepared", hidden: NDArray[np.int32]) -> "Cases":
    """Each user's first training event with a hidden item, with the history before it."""
    from recsys_core.data.histories.cases import Cases

    is_hidden = np.zeros(len(data.items) + 1, bool)
    is_hidden[hidden] = True
    users: list[str] = []
    targets: list[int] = []
    histories: list[NDArray[np.int32]] = []
    for path in data.buckets:
        table = pl.read_parquet(path, columns=["user_id", "item_idx", "train_end"])
        for user, items, end in table.iter_rows():
            events = np.array(items[:end], np.int32)
            places = np.flatnonzero(is_hidden[events])
            if places.size and places[0] > 0:
                users.append(user)
                targets.append(int(events[places[0]]))
                histories.append(events[: places[0]])
    lengths = np.array([len(history) for history in histories], np.int32)
    return Cases(users, lengths, np.array(targets, np.int32), histories, lengths, {})


def compared(
    data: "Prepared", cold: "Cases", model: "Recommender", hidden: NDArray[np.int32]
) -> dict[str, float | None]:
    """Recall of hidden items and NDCG of known items, also with random vectors for hidden items."""
    cold_recall, known = recall(data, cold, model), data.validator(1_000_000)(model)
    vectors = model.item_vectors
    changed = with_random_vectors(model, hidden)
    model.item_vectors = lambda *_, **__: changed  # pyright: ignore[reportAttributeAccessIssue]
    chance, beside = recall(data, cold, model), data.validator(1_000_000)(model)
    model.item_vectors = vectors
    return {
        "cold_recall_at_50": cold_recall,
        "random": chance,
        "ratio": cold_recall / chance if chance else None,
        "known_ndcg_at_10": known,
        "known_ndcg_at_10_with_random": beside,
    }


def with_random_vectors(model: "Recommender", items: NDArray[np.int32]) -> "Tensor":
    """The item vectors, with random vectors of median length for some items."""
    import torch

    vectors = model.item_vectors().detach().clone()
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.randn(len(items), vectors.shape[1], generator=generator)
    usual = vectors[1:].norm(dim=1).median()
    vectors[torch.from_numpy(items).long()] = drawn / drawn.norm(dim=1, keepdim=True) * usual
    return vectors


def recall(data: "Prepared", cases: "Cases", model: "Recommender") -> float:
    """Recall of the cases' targets."""
    from recsys_core.data.histories.cases import candidate_mask
    from recsys_core.evaluation.metrics import recall_at_k
    from recsys_core.evaluation.ranking import rank_targets
    from recsys_core.models.ranker import model_ranker

    candidates = candidate_mask(data.items, "validation")
    ranks = rank_targets(model_ranker(model), cases, candidates, exclude_seen=data.exclude_seen)
    return float(recall_at_k(ranks, K).mean())


if __name__ == "__main__":
    main()
