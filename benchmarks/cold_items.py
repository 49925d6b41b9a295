"""Items that training has never seen: does their content find them their place?

    python -m benchmarks.cold_items [--config FILE.toml] [--data DIR] [--epochs N]

Hides 5 % of the items from training, histories and validation entirely, trains a network on the
rest, and then asks for each user's first event with a hidden item: is it among the first 50 of the
full catalogue? The same network with random vectors in the place of the hidden items' says what
that would be worth without content, and a network without content what it costs the others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.harness import finish, options
from flows.environment import set_default_environment

if TYPE_CHECKING:
    from recsys_core.evaluation.ranking import Cases
    from recsys_core.models.recommender import Recommender
    from tasks.prepared import Prepared
    from tasks.training import NetworkConfig

HIDDEN_SHARE = 0.05
K = 50
SEED = 5


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, default=Path("infra/configs/ml-1m.toml"))
    parser.add_argument("--workspace", type=Path, default=Path("workspace/cold-items"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--id-dropout", type=float, default=0.1, help="id_dropout of the network")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.prepared import prepared_artifact
    from flows.config import load_config
    from tasks.prepared import Prepared

    config = load_config(args.config, data=args.data)
    config = config.model_copy(update={"workspace": args.workspace})
    original = prepared_artifact(config)
    hidden = hidden_items(Prepared(original))
    data = Prepared(without(original, hidden, args.workspace / "hidden"))
    cold = cold_cases(Prepared(original), hidden)
    epochs = 1 if args.quick else args.epochs
    variants: dict[str, dict[str, Any]] = {
        f"content, {args.id_dropout:.0%} of ids dropped": {"id_dropout": args.id_dropout},
        "content": {"id_dropout": 0.0},
        "ids only": {"id_dropout": 0.0, "content_features": 0},
    }
    rows: list[list[object]] = []
    figures: dict[str, Any] = {"hidden_items": len(hidden), "cold_cases": len(cold)}
    for name, changes in variants.items():
        model = trained(data, varied(config.teacher, epochs, changes), args.workspace / name)
        found = recall(data, cold, model)
        lost = recall(data, cold, model, random=hidden)
        warm = data.validator(1_000_000)(model)
        ratio = found / lost if lost else None
        rows.append([name, found, lost, ratio, warm])
        figures[name] = {"cold_recall_at_50": found, "random": lost, "warm_ndcg_at_10": warm}
    columns = ["network", f"cold recall@{K}", "random vectors", "ratio", "warm NDCG@10"]
    finish("cold_items", columns, rows, figures, args.out)


def varied(network: "NetworkConfig", epochs: int, changes: Mapping[str, Any]) -> "NetworkConfig":
    """One network of the teacher with other content settings."""
    from tasks.training import NetworkConfig

    fields = network.model_dump(include={"model", "training", "content_features"})
    fields["training"] |= {"epochs": epochs, "validate_every": epochs}
    fields["model"] |= {"id_dropout": changes["id_dropout"]}
    fields["content_features"] = changes.get("content_features", fields["content_features"])
    return NetworkConfig.model_validate(fields)


def hidden_items(data: "Prepared") -> NDArray[np.int32]:
    """A random share of the items that occur in training, by item_idx."""
    occurring = data.items.filter(pl.col("train_count") > 0)["item_idx"].to_numpy()
    chosen = np.random.default_rng(SEED).permutation(occurring)
    return np.sort(chosen[: round(HIDDEN_SHARE * len(occurring))])


def without(original: Any, hidden: NDArray[np.int32], folder: Path) -> Any:
    """The prepared data as if nobody had ever met the hidden items."""
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
    """Each user's first training event with a hidden item, after what they had had by then."""
    from recsys_core.evaluation.ranking import Cases

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


def trained(
    data: "Prepared",
    network: "NetworkConfig",
    folder: Path,
    *,
    validate_on: "Prepared | None" = None,
    source: "Recommender | None" = None,
) -> "Recommender":
    """A network trained on the prepared data.

    Args:
        data: What it learns from.
        network: Its settings.
        folder: For checkpoints.
        validate_on: Whose validation events say when to stop; None: those of `data`.
        source: Begins with what this model learned on other items; None: with initial weights.
    """
    import time

    from recsys_core.training.loop import fit
    from recsys_core.training.objectives import competition_of, next_item_loss
    from recsys_core.training.unseen import place_unseen_items
    from tasks.training import build_network, training_set_of

    model = build_network(data, network)
    if source is not None:
        model.transfer(source)
    training_set = training_set_of(data, model.max_length, network.training)
    competition = competition_of(training_set.item_counts(len(data.items)), network.training)
    loss = next_item_loss(network.training, competition)
    fit(
        model,
        training_set,
        network.training,
        competition=competition,
        loss=loss,
        validate=(validate_on or data).validator(network.training.validation_cases),
        checkpoint=folder,
        clock=time.monotonic,
    )
    place_unseen_items(
        model, data.unseen_items, training_set, network.training, competition=competition, loss=loss
    )
    return model


def recall(
    data: "Prepared",
    cases: "Cases",
    model: "Recommender",
    random: NDArray[np.int32] | None = None,
) -> float:
    """Recall of the cases' targets; with random vectors, of the usual length, for some items."""
    import torch

    from recsys_core.evaluation.metrics import recall_at_k
    from recsys_core.evaluation.ranking import candidate_mask, rank_targets
    from recsys_core.models.ranker import model_ranker

    vectors = model.item_vectors
    if random is not None:
        changed = vectors().detach().clone()
        generator = torch.Generator().manual_seed(SEED)
        drawn = torch.randn(len(random), changed.shape[1], generator=generator)
        usual = changed[1:].norm(dim=1).median()
        changed[torch.from_numpy(random).long()] = drawn / drawn.norm(dim=1, keepdim=True) * usual
        model.item_vectors = lambda *_, **__: changed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        candidates = candidate_mask(data.items, "validation")
        ranks = rank_targets(model_ranker(model), cases, candidates, exclude_seen=data.exclude_seen)
    finally:
        model.item_vectors = vectors
    return float(recall_at_k(ranks, K).mean())


if __name__ == "__main__":
    main()
