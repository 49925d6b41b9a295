"""Transfer between two markets that share content but not ids.

    python -m benchmarks.transfer [--epochs N]

The users of a synthetic world are split into two markets. Each market offers a random three
quarters of the items under its own ids; the markets share titles and categories only. Training on
1, 5 and 25 % of the second market's users starts from a teacher of the first market, or from
initial weights. All networks rank the test window of all users of the second market; their
validation events stop the training. The world is synthetic, so nothing is tuned on a real test set.
"""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from flows.config import NightlyConfig
    from recsys_core.artifacts import Artifact

SHARES = (0.01, 0.05, 0.25)
CARRIED = 0.75
FIRST_DAY, LAST_DAY = date(1999, 12, 1), date(1999, 12, 31)
SEED = 7


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("workspace/transfer"))
    parser.add_argument("--epochs", type=int, default=12, help="epochs for all users of a market")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.accuracy import ranked
    from benchmarks.networks import trained, varied
    from benchmarks.prepared import prepared_artifact
    from recsys_core.models.ranker import model_ranker
    from tasks.training.network import build_network
    from tasks.training.prepared import Prepared

    configs = markets(args.workspace, n_users=400 if args.quick else 4800)
    first, second = (prepared_artifact(config) for config in configs)
    teacher, data = configs[0].teacher, Prepared(second)
    epochs = 1 if args.quick else args.epochs
    changes = {"id_dropout": 0.2, "content_features": 1024}
    network = varied(teacher, epochs, changes)
    source = trained(Prepared(first), network, args.workspace / "first")
    untouched = build_network(data, network)
    untouched.initialise_from_other_catalogue(source)
    zero_shot, _ = ranked(data, model_ranker(untouched.eval()), "test")
    rows: list[list[object]] = [["none", None, zero_shot, None]]
    figures: dict[str, Any] = {"0": {"transferred": zero_shot}}
    for share in SHARES:
        part = Prepared(some_users(second, share, args.workspace / f"{share:.0%}"))
        # Few users give few steps per epoch, so training has more epochs until it stops improving.
        often = varied(teacher, round(epochs / share**0.5), changes)
        patient = {"validate_every": max(1, often.training.epochs // 12), "patience": 3}
        training = often.training.model_copy(update=patient)
        often = often.model_copy(update={"training": training})
        ndcg_of: dict[str, float] = {}
        for name, begin in {"from nothing": None, "transferred": source}.items():
            folder = args.workspace / f"{share:.0%} {name}"
            model = trained(part, often, folder, validate_on=data, source=begin)
            ndcg_of[name], _ = ranked(data, model_ranker(model.eval()), "test")
        gain = ndcg_of["transferred"] / ndcg_of["from nothing"]
        rows.append([f"{share:.0%}", ndcg_of["from nothing"], ndcg_of["transferred"], gain])
        figures[f"{share}"] = {**ndcg_of, "ratio": gain}
    columns = ["users trained on", "from nothing", "transferred", "ratio"]
    finish("transfer", columns, rows, figures, args.out)


def markets(workspace: Path, *, n_users: int) -> list["NightlyConfig"]:
    """Write the source files of both markets; returns a configuration for each."""
    from flows.config import NightlyConfig
    from recsys_core.synthetic.world import WorldConfig, write_world

    folder = workspace / "world"
    write_world(folder, WorldConfig(n_users=n_users), first_day=FIRST_DAY, through=LAST_DAY)
    events = pl.read_parquet(folder / "interactions" / "*.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    random = np.random.default_rng(SEED)
    users = events["user_id"].unique().sort()
    of_first = users.filter(pl.Series(random.random(len(users)) < 0.5))
    configs: list[NightlyConfig] = []
    for market in ("first", "second"):
        carried = items.filter(pl.Series(random.random(len(items)) < CARRIED))
        names = random.permutation(len(carried))
        ids = carried.select(
            "item_id", new_id=pl.concat_str(pl.lit(f"{market}-"), pl.Series(names).cast(pl.String))
        )
        is_own = pl.col("user_id").is_in(of_first.implode())
        own = events.filter(is_own if market == "first" else ~is_own)
        out = workspace / market
        out.mkdir(parents=True, exist_ok=True)
        for table, name in ((own, "interactions"), (carried, "items")):
            renamed = table.join(ids, on="item_id", maintain_order="left")
            renamed = renamed.with_columns(item_id="new_id").drop("new_id")
            renamed.write_parquet(out / f"{name}.parquet")
        fields = {
            "workspace": out / "workspace",
            "source": {
                "format": "parquet",
                "interactions": out / "interactions.parquet",
                "items": out / "items.parquet",
            },
        }
        configs.append(NightlyConfig.model_validate(fields))
    return configs


def some_users(original: "Artifact", share: float, folder: Path) -> "Artifact":
    """The prepared data of a random share of the users; the items are counted again."""
    from recsys_core.artifacts import Artifact
    from recsys_core.data.catalogue.candidates import count_training_interactions

    (folder / "histories").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    buckets: list[Path] = []
    for path in sorted(original.file("histories").glob("bucket-*.parquet")):
        users = pl.read_parquet(path)
        buckets.append(folder / "histories" / path.name)
        users.filter(pl.Series(random.random(len(users)) < share)).write_parquet(buckets[-1])
    items = pl.read_parquet(original.file("items.parquet"))
    counts = count_training_interactions(buckets, n_items=len(items), since=None)
    items = items.drop("train_count", "recent_count").join(
        counts, on="item_idx", maintain_order="left"
    )
    items.write_parquet(folder / "items.parquet")
    for name in ("embeddings.parquet", "split.json"):
        (folder / name).write_bytes(original.file(name).read_bytes())
    return Artifact("prepare", f"{share:.0%}", folder)


if __name__ == "__main__":
    main()
