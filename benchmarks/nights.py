"""Two weeks of nights: full training every night, compared with the retraining policy.

    python -m benchmarks.nights [--nights 14]

Both teachers train on the same synthetic world, which grows by one day per night. The table has one
row per night: the training mode of the second teacher, its training events as a share of those of
the first, and the NDCG@10 of both on the test window of the night. The world is synthetic, so
nothing is tuned on a real test set.
"""

import time
from datetime import date, timedelta
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from flows.config import NightlyConfig

FIRST_NIGHT = date(2026, 3, 1)
EPOCHS = 16


class Night(NamedTuple):
    """The cost and the quality of a teacher."""

    mode: str
    events: float
    seconds: float
    ndcg: float


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("workspace/nights"))
    parser.add_argument("--nights", type=int, default=14)
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from recsys_core.synthetic.world import write_world

    configs = {mode: settings(args.workspace, mode, quick=args.quick) for mode in ("full", "auto")}
    world = configs["full"].synthetic
    rows: list[list[object]] = []
    warm: list[tuple[Night, Night]] = []
    for number in range(2 if args.quick else args.nights):
        day = FIRST_NIGHT + timedelta(days=number)
        first = FIRST_NIGHT - timedelta(days=world.days)
        write_world(world.folder, world.world, first_day=first, through=day - timedelta(days=1))
        full, auto = (night(config, day) for config in configs.values())
        rows.append(
            [
                str(day),
                auto.mode,
                auto.events / full.events,
                auto.seconds / full.seconds,
                full.ndcg,
                auto.ndcg,
            ]
        )
        if auto.mode == "warm":
            warm.append((full, auto))
    figures: dict[str, Any] = {
        "warm_nights": len(warm),
        "warm_cost_share": mean(auto.events / full.events for full, auto in warm),
        "warm_seconds_share": mean(auto.seconds / full.seconds for full, auto in warm),
        "warm_ndcg_share": mean(auto.ndcg for _, auto in warm)
        / mean(full.ndcg for full, _ in warm),
    }
    rows.append(
        [
            "mean of the warm nights",
            None,
            figures["warm_cost_share"],
            figures["warm_seconds_share"],
            mean(full.ndcg for full, _ in warm),
            mean(auto.ndcg for _, auto in warm),
        ]
    )
    columns = ["night", "mode", "events, share", "seconds, share", "NDCG@10 full", "NDCG@10 auto"]
    finish("nights", columns, rows, figures, args.out)


def settings(workspace: Path, mode: str, *, quick: bool) -> "NightlyConfig":
    """The default night with full training every night, or with the retraining policy."""
    from flows.config import NightlyConfig

    world = {"n_users": 300, "n_items": 100} if quick else {}
    fields = {
        "workspace": str(workspace / mode),
        "synthetic": {"folder": str(workspace / "world"), "world": world},
        "teacher": {
            "training": {"epochs": 2 if quick else EPOCHS, "validate_every": 2},
            "retraining": {"mode": mode},
        },
    }
    return NightlyConfig.model_validate(fields)


def night(config: "NightlyConfig", day: date) -> Night:
    """Train the teacher of a night and rank the test window with it."""
    from benchmarks.accuracy import ranked
    from benchmarks.prepared import run_through
    from recsys_core.models.ensemble import load_recommender
    from recsys_core.models.ranker import model_ranker
    from tasks.contracts.network import Curve
    from tasks.contracts.teacher import TeacherPlan
    from tasks.stages.plan_teacher import plan_teacher
    from tasks.stages.prepare import prepare
    from tasks.stages.train_teacher import train_teacher
    from tasks.training.prepared import Prepared

    prepared = run_through(prepare, config, day=day)[prepare]
    began = time.perf_counter()
    outcome = run_through(train_teacher, config, day=day)
    seconds = time.perf_counter() - began
    teacher = outcome[train_teacher]
    plan = TeacherPlan.load(outcome[plan_teacher])
    ndcg, _ = ranked(Prepared(prepared), model_ranker(load_recommender(teacher.folder)), "test")
    policy, training = config.teacher.retraining, config.teacher.training
    an_epoch = {
        "full": plan.full_events / training.epochs,
        "warm": plan.warm_events / policy.warm_epochs,
        "reuse": 0.0,
    }
    epochs = len(Curve.load(teacher).epochs)  # training may have stopped early
    return Night(plan.mode, an_epoch[plan.mode] * epochs, seconds, ndcg)


if __name__ == "__main__":
    main()
