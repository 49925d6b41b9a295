"""Accuracy of the teacher over several seeds, with the protocol of published figures.

    python -m benchmarks.accuracy [--config FILE.toml] [--data DIR] [--seeds 3] [--final]

Leave-one-out, full catalogue, without seen items, without the timestamp of the target. Settings are
tuned on validation events. Only --final uses the test events, and each use adds a line to the
ledger, which is committed, so tuning on the test set would show.

Trained networks are not trained again. To use several processes, first train each seed in its own
process with --only SEED.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from flows.config import NightlyConfig
    from recsys_core.artifacts import Artifact
    from recsys_core.data.histories.cases import Ranker, Split
    from tasks.training.prepared import Prepared

LEDGER = Path("docs/test_ledger.jsonl")


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, default=Path("infra/configs/ml-1m.toml"))
    parser.add_argument("--workspace", type=Path, default=Path("workspace/accuracy"))
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of teachers, each with its own seed"
    )
    parser.add_argument("--only", type=int, help="train only the teacher of this seed")
    parser.add_argument("--final", action="store_true", help="use the test events and record it")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.prepared import trained_teacher
    from flows.config import load_config
    from tasks.training.prepared import Prepared

    config = load_config(args.config, data=args.data)
    config = config.model_copy(update={"workspace": args.workspace})
    split = "test" if args.final else "validation"
    seeds = [args.only] if args.only else list(range(1, args.seeds + 1))
    rows: list[list[object]] = []
    by_seed: dict[int, tuple[float, float]] = {}
    teachers: list[Artifact] = []
    artifact, _ = trained_teacher(with_seed(config, seeds[0], quick=args.quick))
    prepared = Prepared(artifact)
    for seed in seeds:
        _, teacher = trained_teacher(with_seed(config, seed, quick=args.quick))
        teachers.append(teacher)
        models = rankers(prepared, teacher, alone=seed != seeds[0])
        for name, ranker in models.items():
            ndcg, hit_rate = ranked(prepared, ranker, split)
            rows.append([f"{name}, seed {seed}" if "teacher" in name else name, ndcg, hit_rate])
            if name == "teacher":
                by_seed[seed] = ndcg, hit_rate
    ndcgs, hit_rates = zip(*by_seed.values(), strict=True)
    spread = stdev(ndcgs) if len(ndcgs) > 1 else 0.0
    rows.append([f"teacher, mean of {len(seeds)}", mean(ndcgs), mean(hit_rates)])
    rows.append(["teacher, standard deviation", spread, None])
    figures: dict[str, Any] = {
        "split": split,
        "teacher_ndcg_at_10": mean(ndcgs),
        "teacher_ndcg_at_10_spread": spread,
        "teacher_hr_at_10": mean(hit_rates),
        "by_seed": {seed: ndcg for seed, (ndcg, _) in by_seed.items()},
    }
    if len(seeds) > 1:
        ndcg, hit_rate = ranked(prepared, ensemble_ranker(teachers), split)
        rows.append([f"all {len(seeds)} as one ensemble", ndcg, hit_rate])
        figures["ensemble_ndcg_at_10"] = ndcg
    if args.final:
        record(LEDGER, figures, config.teacher.model_dump(mode="json"))
    finish("accuracy", ["model", f"{split} NDCG@10", "HR@10"], rows, figures, args.out)


def with_seed(config: "NightlyConfig", seed: int, *, quick: bool) -> "NightlyConfig":
    """The configuration with another seed of the teacher; with `quick` also few epochs."""
    fields = config.model_dump()
    fields["teacher"]["training"]["seed"] = seed
    if quick:
        fields["teacher"]["training"] |= {"epochs": 2, "validate_every": 1}
    return type(config).model_validate(fields)


def rankers(data: "Prepared", teacher: "Artifact", *, alone: bool) -> dict[str, "Ranker"]:
    """The teacher, the first member if it is an ensemble, and the baselines unless `alone`."""
    from recsys_core.models.checkpoint import load_model
    from recsys_core.models.ensemble import Ensemble, load_recommender
    from recsys_core.models.ranker import model_ranker
    from tasks.training.baselines import baselines

    whole = load_recommender(teacher.folder)
    models = {"teacher": model_ranker(whole)}
    if isinstance(whole, Ensemble):
        models["one network of the teacher"] = model_ranker(load_model(teacher.folder))
    return models if alone else models | baselines(data)


def ensemble_ranker(teachers: Sequence["Artifact"]) -> "Ranker":
    """One ensemble of the teachers' first networks, without a recency prior."""
    from recsys_core.models.checkpoint import load_model
    from recsys_core.models.ensemble import Ensemble
    from recsys_core.models.ranker import model_ranker

    return model_ranker(Ensemble([load_model(teacher.folder) for teacher in teachers]).eval())


def ranked(data: "Prepared", ranker: "Ranker", split: "Split") -> tuple[float, float]:
    """NDCG@10 and hit rate at 10, the mean over users."""
    from recsys_core.data.histories.cases import candidate_mask, read_cases
    from recsys_core.evaluation.metrics import mean_per_user, ndcg_at_k, recall_at_k
    from recsys_core.evaluation.ranking import rank_targets

    candidates = candidate_mask(data.items, split)
    ranks: list[np.ndarray[Any, Any]] = []
    users: list[str] = []
    for bucket in data.buckets:
        cases = read_cases(bucket, data.items, split, exclude_seen=data.exclude_seen)
        ranks.append(rank_targets(ranker, cases, candidates, exclude_seen=data.exclude_seen))
        users += cases.user_id
    all_ranks = np.concatenate(ranks)
    ndcg, hits = ndcg_at_k(all_ranks, 10), recall_at_k(all_ranks, 10)
    return float(mean_per_user(ndcg, users).mean()), float(mean_per_user(hits, users).mean())


def record(ledger: Path, figures: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Append a use of the test events to the ledger: time, commit, settings and figures."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    line = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit,
        "figures": dict(figures),
        "recipe": dict(recipe),
    }
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
