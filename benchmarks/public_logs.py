"""Whether the default recipe holds on other people's data: a night on each of several public logs.

    python -m benchmarks.public_logs [--data DIR] [--only LOG] [--final]

DIR has one folder per log, named as in `LOGS`. Each night has the default configuration; only the
source, the windows and whether items may be recommended again are set. What ships is compared with
the best of popularity, item-kNN and EASE, which are tuned on validation events and rank the same
cases. The interval is that of the paired difference over users, as a share of the baseline, each
bound with a confidence of 95 %.

A log that fails, for instance because its files are missing or its teacher is refused, is reported
with its reason, and the others go on. Models rank validation events. Only --final uses the test
events, and each log adds a line to the ledger before its figures are shown. Finished stages are not
run again.
"""

import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from benchmarks.log_result import LogResult
    from flows.config import NightlyConfig
    from recsys_core.data.histories.cases import Ranker, Split
    from tasks.training.prepared import Prepared

LOGS: Mapping[str, Mapping[str, Any]] = {
    "ml-latest-small": {
        "run_date": date(2018, 9, 25),
        "source": {"format": "movielens", "interactions": "{data}"},
        "prepare": {"validation_days": 365, "test_days": 365, "popularity_days": 365},
    },
    "online-retail": {
        "run_date": date(2011, 12, 10),
        "source": {
            "format": "parquet",
            "interactions": "{data}/interactions.parquet",
            "items": "{data}/items.parquet",
            "event_types": {"purchase": 1.0},  # returns say nothing about the next purchase
        },
        "prepare": {"validation_days": 14, "test_days": 14, "exclude_seen": False},
    },
    "movietweetings": {
        "run_date": date(2013, 9, 2),
        "source": {
            "format": "parquet",
            "interactions": "{data}/interactions.parquet",
            "items": "{data}/items.parquet",
        },
        "prepare": {"validation_days": 7, "test_days": 7},
    },
    "complete-journey": {
        "run_date": date(2018, 1, 1),
        "source": {
            "format": "parquet",
            "interactions": "{data}/interactions.parquet",
            "items": "{data}/items.parquet",
        },
        "prepare": {"validation_days": 14, "test_days": 14, "exclude_seen": False},
    },
    "amazon-sports": {},  # leave-one-out, as published: infra/configs/amazon-sports.toml
}
_CONFIGS = Path(__file__).parents[1] / "infra" / "configs"
NETWORKS = ("teacher", "student", "compressed", "control")


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("workspace/public-logs"))
    parser.add_argument("--only", choices=LOGS, action="append", help="this log; may be repeated")
    parser.add_argument("--final", action="store_true", help="use the test events and record it")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.accuracy import LEDGER, record
    from benchmarks.prepared import RUN_DATE

    split = "test" if args.final else "validation"
    data = args.data or Path("../shared/data")
    results: list[LogResult] = []
    for log in args.only or list(LOGS):
        config = configuration(log, data / log)
        config = adjusted(config, args.workspace / log, split, quick=args.quick)
        results.append(result_of(log, config, config.run_date or RUN_DATE, quick=args.quick))
        if args.final:  # before anybody sees the figures, so that no look at them is forgotten
            record(LEDGER, {"split": split} | results[-1].figures(), {log: results[-1].recipe})
        print(f"\n{results[-1].sentence()}\n", flush=True)
    figures: dict[str, Any] = {"split": split}
    for result in results:
        figures |= result.figures()
    rows = [row for result in results for row in result.rows()]
    columns = ["log", "model", f"{split} NDCG@10", "Recall@10", "settings"]
    finish("public_logs", columns, rows, figures, args.out)


def configuration(log: str, folder: Path) -> "NightlyConfig":
    """The default night on a log, whose files lie in the folder."""
    from flows.config import NightlyConfig, load_config

    if not LOGS[log]:
        return load_config(_CONFIGS / f"{log}.toml", data=folder)
    source = {
        name: value.replace("{data}", str(folder)) if isinstance(value, str) else value
        for name, value in LOGS[log]["source"].items()
    }
    return NightlyConfig.model_validate({**LOGS[log], "name": log, "source": source})


def adjusted(
    config: "NightlyConfig", workspace: Path, split: str, *, quick: bool
) -> "NightlyConfig":
    """The configuration with the changes of the options."""
    fields = config.model_dump()
    fields["workspace"] = workspace
    fields["evaluation"]["split"] = split
    if quick:
        for network in ("teacher", "student"):
            fields[network]["training"] |= {"epochs": 2, "validate_every": 1}
    return type(config).model_validate(fields)


def result_of(log: str, config: "NightlyConfig", run_date: date, *, quick: bool) -> "LogResult":
    """Run the night and rank the same cases with the tuned baselines."""
    from benchmarks.log_result import LogResult
    from flows.nightly import nightly

    failure: str | None = None
    began = time.monotonic()
    try:
        nightly(config, run_date)
    except Exception as error:  # whatever stops one log must not stop the others
        failure = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    try:
        return _compared(log, config, run_date, failure, seconds, quick=quick)
    except Exception as error:  # as above
        return LogResult(log, failure or f"{type(error).__name__}: {error}", seconds)


def _compared(
    log: str,
    config: "NightlyConfig",
    run_date: date,
    failure: str | None,
    seconds: float,
    *,
    quick: bool,
) -> "LogResult":
    from benchmarks.log_result import LogResult, values_by_user
    from benchmarks.tuned_baselines import tuned_baselines
    from flows.nightly import plan
    from recsys_core.evaluation.results import Verdict
    from tasks.contracts.network import NetworkSummary
    from tasks.contracts.recipe import Recipe
    from tasks.stages.choose_recipe import choose_recipe
    from tasks.stages.evaluate import evaluate
    from tasks.stages.gate import gate
    from tasks.stages.prepare import prepare
    from tasks.stages.train_teacher import train_teacher
    from tasks.training.prepared import Prepared

    outcome = plan(config, run_date)
    finished = {decision.stage for decision in outcome if not decision.runs}
    if prepare.name not in finished:
        return LogResult(log, failure, seconds)
    data = Prepared(outcome[prepare])
    tuned = tuned_baselines(data, quick=quick)
    rankers = {name: baseline.ranker for name, baseline in tuned.items()}
    ranks = ranks_of(data, config.evaluation.split, rankers)
    if evaluate.name in finished:
        ranks = beside(pl.read_parquet(outcome[evaluate].file("ranks.parquet")), ranks)
    recipe = Recipe.load(outcome[choose_recipe]).choices if choose_recipe.name in finished else ()
    return LogResult(
        log,
        failure,
        seconds,
        counts=counts_of(data),
        recipe={
            ", ".join(f"{name} = {value}" for name, value in choice.settings.items()): choice.reason
            for choice in recipe
        },
        by_user={
            model: values_by_user(ranks, model)
            for model in (*NETWORKS, *tuned)
            if f"rank_{model}" in ranks.columns
        },
        settings={name: baseline.settings for name, baseline in tuned.items()},
        teacher_on_validation=NetworkSummary.load(outcome[train_teacher]).validation_ndcg_at_10
        if train_teacher.name in finished
        else None,
        verdict=Verdict.load(outcome[gate]).sentence if gate.name in finished else None,
    )


def ranks_of(data: "Prepared", split: "Split", rankers: "Mapping[str, Ranker]") -> pl.DataFrame:
    """The cases that `evaluate` ranks, in its order, with the rank of each ranker."""
    from recsys_core.data.histories.cases import candidate_mask, read_cases
    from recsys_core.evaluation.ranking import rank_targets

    candidates = candidate_mask(data.items, split)
    frames: list[pl.DataFrame] = []
    for bucket in data.buckets:
        cases = read_cases(bucket, data.items, split, exclude_seen=data.exclude_seen)
        columns: dict[str, Any] = {
            f"rank_{name}": rank_targets(ranker, cases, candidates, exclude_seen=data.exclude_seen)
            for name, ranker in rankers.items()
        }
        user_id = pl.Series(cases.user_id, dtype=pl.String)
        frames.append(pl.DataFrame({"user_id": user_id, "position": cases.positions, **columns}))
    return pl.concat(frames)


def beside(of_night: pl.DataFrame, of_baselines: pl.DataFrame) -> pl.DataFrame:
    """The night's ranks with those of the tuned baselines, which replace the night's own."""
    cases = ["user_id", "position"]
    assert of_night.select(cases).equals(of_baselines.select(cases)), "the cases are the same"
    return of_night.with_columns(of_baselines.drop(cases))


def counts_of(data: "Prepared") -> dict[str, int]:
    """Size of the log."""
    split = data.split
    events = split.train_events + split.validation_events + split.test_events
    return {"users": split.n_users, "items": len(data.items), "events": events}


if __name__ == "__main__":
    main()
