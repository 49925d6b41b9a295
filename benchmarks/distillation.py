"""What ships beside its teacher and an honest control, over several seeds.

    python -m benchmarks.distillation [--data DIR] [--seeds 3] [--only SEED] [--final]

For each seed a night up to its evaluation, then one with a small student of the same teacher and
the same soft labels. The control has the student's size, epochs and batches, without a teacher.
"teacher" is the first network of the teacher, "ensemble" all that taught, if there are several.
Settings are tuned on validation events. Only --final uses the test events, and each use adds a line
to the ledger.

Also measured: the bytes of a soft label, what its rounding costs, and how much longer a training
step takes because seen items are left out of the loss. Trained networks are not trained again.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

if TYPE_CHECKING:
    from flows.config import NightlyConfig
    from flows.pipeline import Outcome
    from recsys_core.data.histories.cases import Split
    from tasks.training.prepared import Prepared

SMALL = {"n_layers": 1, "dropout": 0.05}
_POSITIONS = 4_000
_STEPS = 24


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, default=Path("infra/configs/ml-1m.toml"))
    parser.add_argument("--workspace", type=Path, default=Path("workspace/distillation"))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--only", type=int, help="only this seed")
    parser.add_argument("--no-small", action="store_true", help="without the small student")
    parser.add_argument("--final", action="store_true", help="use the test events and record it")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.accuracy import LEDGER, record
    from benchmarks.prepared import run_through
    from flows.config import load_config
    from tasks.stages.evaluate import evaluate
    from tasks.stages.prepare import prepare
    from tasks.training.prepared import Prepared

    loaded = load_config(args.config, data=args.data)
    seeds = [args.only] if args.only else list(range(1, args.seeds + 1))
    split: Split = "test" if args.final else "validation"
    students = {"": {}} if args.no_small else {"": {}, "small_": SMALL}
    rows: list[list[object]] = []
    by_seed: list[dict[str, float]] = []
    outcome: Outcome | None = None
    for seed in seeds:
        measured: dict[str, float] = {}
        for prefix, shape in students.items():
            config = changed(loaded, args.workspace, seed, split, shape, quick=args.quick)
            outcome = run_through(evaluate, config)
            of_night = figures_of(outcome, prefix or "student_")
            if not prefix:
                of_night |= teachers_of(outcome, split)
            rows += [[f"{name}, seed {seed}", *values] for name, values in table(of_night)]
            measured |= (
                of_night
                if not prefix
                else {name: value for name, value in of_night.items() if name.startswith(prefix)}
            )
        by_seed.append(measured)
    assert outcome is not None, "there is at least one seed"
    figures: dict[str, Any] = {"split": split, "seeds": seeds}
    for name in by_seed[0]:
        values = [measured[name] for measured in by_seed]
        figures[name] = min(values) if name.endswith("_low") else mean(values)
        figures[f"{name}_spread"] = stdev(values) if len(values) > 1 else 0.0
    figures |= labels_of(outcome)
    data = Prepared(outcome[prepare])
    figures["epoch_time_masked_over_plain"] = masked_over_plain(data, loaded)
    if args.final:
        record(LEDGER, figures, loaded.model_dump(mode="json", include={"teacher", "student"}))
    rows += [[name, value, None] for name, value in figures.items() if isinstance(value, float)]
    finish("distillation", ["model", f"{split} NDCG@10", "MB"], rows, figures, args.out)


def changed(
    config: "NightlyConfig",
    workspace: Path,
    seed: int,
    split: "Split",
    student: Mapping[str, Any],
    *,
    quick: bool,
) -> "NightlyConfig":
    """The configuration with other seeds, another student and perhaps few epochs."""
    fields = config.model_dump()
    fields["workspace"] = workspace
    fields["evaluation"]["split"] = split
    fields["student"]["model"] |= student
    for network in ("teacher", "student"):
        fields[network]["training"]["seed"] = seed
        if quick:
            fields[network]["training"] |= {"epochs": 2, "validate_every": 1}
    return type(config).model_validate(fields)


def figures_of(outcome: "Outcome", prefix: str) -> dict[str, float]:
    """NDCG@10 of the night's models, the size of what ships, and its gain over the control."""
    import polars as pl

    from recsys_core.evaluation.metrics import mean_per_user, ndcg_at_k
    from recsys_core.evaluation.statistics import paired_difference
    from tasks.stages.evaluate import evaluate

    ranks = pl.read_parquet(outcome[evaluate].file("ranks.parquet"))
    users = ranks["user_id"].to_list()
    by_user = {
        model: mean_per_user(ndcg_at_k(ranks[f"rank_{model}"].to_numpy(), 10), users)
        for model in ("teacher", "student", "control", "compressed")
    }
    ndcg = {model: float(values.mean()) for model, values in by_user.items()}
    gain = paired_difference(by_user["compressed"], by_user["control"])
    return {
        "ensemble_ndcg_at_10": ndcg["teacher"],
        f"{prefix}before_compression_ndcg_at_10": ndcg["student"],
        f"{prefix}ndcg_at_10": ndcg["compressed"],
        f"{prefix}mb": shipped_bytes(outcome) / 1e6,
        f"{prefix}over_teacher": ndcg["compressed"] / ndcg["teacher"],
        f"{prefix}over_control": ndcg["compressed"] / ndcg["control"],
        f"{prefix}control_ndcg_at_10": ndcg["control"],
        f"{prefix}control_interval_low": gain.low,
    }


def teachers_of(outcome: "Outcome", split: "Split") -> dict[str, float]:
    """NDCG@10 of the teacher's first network alone; an ensemble has more of them."""
    from benchmarks.accuracy import ranked
    from recsys_core.models.checkpoint import load_model
    from recsys_core.models.ranker import model_ranker
    from tasks.stages.prepare import prepare
    from tasks.stages.train_teacher import train_teacher
    from tasks.training.prepared import Prepared

    alone = model_ranker(load_model(outcome[train_teacher].folder))
    ndcg, _ = ranked(Prepared(outcome[prepare]), alone, split)
    return {"teacher_ndcg_at_10": ndcg}


def shipped_bytes(outcome: "Outcome") -> int:
    """Bytes of all that serving needs."""
    from recsys_core.serving.folder import served_bytes
    from tasks.stages.compress import compress

    return served_bytes(outcome[compress].folder)


def table(figures: Mapping[str, float]) -> Iterator[tuple[str, tuple[float, float | None]]]:
    """Rows of one night: the NDCG@10 of each model and the megabytes of what ships."""
    for name, value in figures.items():
        if name.endswith("ndcg_at_10"):
            size = figures.get(name.replace("ndcg_at_10", "mb"))
            yield name.removesuffix("_ndcg_at_10").replace("_", " "), (value, size)


def labels_of(outcome: "Outcome") -> dict[str, float]:
    """Bytes of a label, and the KL from the teacher's distribution to the stored one, in nats."""
    import torch
    import torch.nn.functional as F

    from recsys_core.data.histories.read import read_training_histories
    from recsys_core.data.soft_labels.factorized import StateLabels
    from recsys_core.data.soft_labels.store import SoftLabels
    from recsys_core.models.ensemble import load_recommender
    from tasks.stages.prepare import prepare
    from tasks.stages.train_teacher import train_teacher
    from tasks.stages.write_soft_labels import write_soft_labels
    from tasks.training.prepared import Prepared

    data = Prepared(outcome[prepare])
    store = SoftLabels(
        outcome[write_soft_labels].folder, item_index_sha256=data.split.item_index_sha256
    )
    teacher = load_recommender(outcome[train_teacher].folder)
    histories = read_training_histories(data.buckets[:1])
    labels = store.align(histories, data.buckets[:1])
    assert isinstance(labels, StateLabels), "the stage writes states"
    stored_vectors = torch.from_numpy(store.item_vectors())[1:]
    divergences: list[torch.Tensor] = []
    n_positions = 0
    with torch.inference_mode():
        vectors = teacher.item_vectors()
        for start, end, row in zip(
            labels.windows.starts, labels.windows.ends, labels.rows, strict=True
        ):
            if n_positions >= _POSITIONS:
                break
            history = torch.from_numpy(histories.items[start : end - 1].astype(np.int64))
            exact = (teacher.encode(history[None], vectors)[0] @ vectors[1:].T).log_softmax(dim=1)
            rows = slice(row, row + len(history))
            states = torch.from_numpy(labels.states[rows] * labels.scales[rows, None])
            stored = (states @ stored_vectors.T).log_softmax(dim=1)
            kl = F.kl_div(stored, exact, reduction="none", log_target=True).sum(dim=1)
            divergences.append(kl)
            n_positions += len(history)
    return {
        "bytes_per_position": store.description.bytes / store.description.rows,
        "label_kl_nats": float(torch.cat(divergences).mean()),
    }


def masked_over_plain(data: "Prepared", config: "NightlyConfig") -> float:
    """Time of a teacher's steps with seen items left out, over that of the same steps without."""
    from recsys_core.training.batching import TrainingSet
    from recsys_core.training.gradients import gradient_step
    from recsys_core.training.loop import make_optimizers
    from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
    from recsys_core.training.parallel import Shard
    from tasks.training.network import build_network

    training = config.teacher.training
    steps: dict[bool, Iterator[None]] = {}

    def trained(*, exclude_seen: bool) -> Iterator[None]:
        model = build_network(data, config.teacher).train()
        training_set = TrainingSet(
            data.buckets,
            max_length=model.max_length,
            batch_size=training.batch_size,
            exclude_seen=exclude_seen,
        )
        candidates = candidate_set_of(training_set.item_counts(len(data.items)), training)
        loss = next_item_loss(training, candidates)
        optimizers = make_optimizers(model, training, sparse=candidates.sampled)
        for step, batch in enumerate(training_set.epoch(0, training.seed)):
            restricted = candidates.restrict(batch, (training.seed, 0, step))
            sparse = restricted.negatives is not None
            gradient_step(
                model,
                optimizers,
                model.item_vectors(restricted.items, sparse=sparse),
                restricted,
                loss,
                Shard(),
                learning_rate=training.learning_rate,
                clip_norm=training.clip_norm,
                precision=training.precision,
            )
            yield

    seconds = {False: 0.0, True: 0.0}
    for exclude_seen in seconds:
        steps[exclude_seen] = trained(exclude_seen=exclude_seen)
        next(steps[exclude_seen])  # the first step warms up
    for _ in range(_STEPS):
        for exclude_seen, run in steps.items():
            began = time.perf_counter()
            next(run)
            seconds[exclude_seen] += time.perf_counter() - began
    return seconds[True] / seconds[False]


if __name__ == "__main__":
    main()
