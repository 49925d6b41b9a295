"""Run a night and print the figures of each model beside the best possible ones.

    python -m benchmarks.night [--config FILE.toml] [--data DIR] [--final]

Without a configuration the synthetic world is used, whose true next-item distribution is known. The
Bayes-optimal row has the figures of a ranker with this distribution on the same events. Models rank
validation events; only --final uses the test events.
"""

import time
from argparse import Namespace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from flows.config import NightlyConfig
    from tasks.training.prepared import Prepared


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, help="TOML file; default: the synthetic world")
    parser.add_argument(
        "--workspace",
        type=Path,
        default=Path("workspace/benchmark"),
        help="workspace of the night; not that of real nights, whose champion would change",
    )
    parser.add_argument("--run-date", type=date.fromisoformat, help="the night's date")
    parser.add_argument("--final", action="store_true", help="use the test events")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from flows.config import NightlyConfig, load_config
    from flows.nightly import nightly, plan
    from tasks.chores.summary import table_rows
    from tasks.stages.evaluate import evaluate
    from tasks.stages.prepare import prepare
    from tasks.training.prepared import Prepared

    config = load_config(args.config, data=args.data) if args.config else NightlyConfig()
    config = adjusted(config, args)
    run_date = args.run_date or config.run_date or datetime.now(UTC).date()
    began = time.monotonic()
    nightly(config, run_date)
    seconds = time.monotonic() - began
    outcome = plan(config, run_date)
    ranks = pl.read_parquet(outcome[evaluate].file("ranks.parquet"))
    rows = [[value for _, value in row] for row in table_rows(outcome[evaluate])]
    if config.source is None:
        truth = bayes_optimal(config.synthetic.folder, ranks, Prepared(outcome[prepare]))
        rows.insert(0, ["Bayes-optimal", *truth, None, None])
    figures = {
        str(name): {"ndcg_at_10": ndcg, "recall_at_10": recall} for name, ndcg, recall, *_ in rows
    }
    finish(
        "night",
        ["model", "NDCG@10", "Recall@10", "bytes", "p50 ms"],
        rows,
        {"split": config.evaluation.split, "cases": len(ranks), "seconds": seconds, **figures},
        args.out,
    )


def adjusted(config: "NightlyConfig", args: Namespace) -> "NightlyConfig":
    """The configuration with the changes of the options."""
    fields = config.model_dump()
    fields["evaluation"]["split"] = "test" if args.final else "validation"
    fields["workspace"] = args.workspace
    if args.quick:
        for network in ("teacher", "student"):
            fields[network]["training"]["epochs"] = 2
    return type(config).model_validate(fields)


def bayes_optimal(folder: Path, ranks: pl.DataFrame, data: "Prepared") -> tuple[float, float]:
    """NDCG@10 and Recall@10 of ranking the same events by their true distribution.

    The mean over users of each user's mean, as for the models. The true distribution uses each
    user's true taste, which no model can know, so this is an upper bound.
    """
    from recsys_core.synthetic.world import World

    world = World.open(folder)
    histories = pl.concat(
        pl.read_parquet(path, columns=["user_id", "item_idx", "timestamp"]) for path in data.buckets
    )
    cases = ranks.select("user_id", "position", "target").join(histories, on="user_id")
    item_ids = np.array(["", *data.items["item_id"]], dtype=object)
    reached: list[tuple[str, float, float]] = []
    for batch in cases.iter_slices(256):
        rows = list(batch.iter_rows(named=True))
        days = [
            datetime.fromtimestamp(row["timestamp"][row["position"]] / 1e6, UTC).date()
            for row in rows
        ]
        seen = [item_ids[row["item_idx"][: row["position"]]].tolist() for row in rows]
        columns, probabilities = world.next_item_probabilities(
            [row["user_id"] for row in rows], seen, days
        )
        place = {item_id: column for column, item_id in enumerate(columns)}
        for row, of_case in zip(rows, probabilities, strict=True):
            target = of_case[place[str(item_ids[row["target"]])]]
            rank = 1 + int((of_case > target).sum())
            hit = rank <= 10
            reached.append((row["user_id"], 1 / np.log2(rank + 1) if hit else 0.0, float(hit)))
    by_user = pl.DataFrame(reached, schema=["user_id", "ndcg", "recall"], orient="row")
    means = by_user.group_by("user_id").mean().select(pl.col("ndcg", "recall").mean())
    return means.row(0)


if __name__ == "__main__":
    main()
