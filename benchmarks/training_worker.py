"""One training in a process of its own, for benchmarks.training_speed; prints a line of JSON.

python -m benchmarks.training_worker ml-1m PREPARED EPOCHS PRECISION
python -m benchmarks.training_worker synthetic FOLDER EVENTS ITEMS
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batching import Batch, TrainingSet
from recsys_core.training.loop import TrainingConfig, fit
from recsys_core.training.objectives import competition_of, next_item_loss

SIZE = ModelConfig(embedding_dim=64, n_layers=2, n_heads=2, ffn_dim=128, max_length=200)
PEAK_SIDE = 2048


def main() -> None:
    """Train and print."""
    torch.set_num_threads(2)
    what, *arguments = sys.argv[1:]
    facts = on_ml_1m(*arguments) if what == "ml-1m" else on_synthetic(*arguments)
    print(json.dumps(facts))


def on_ml_1m(prepared: str, epochs: str, precision: str) -> dict[str, Any]:
    """Speed, quality and share of the processor's GEMM peak on a prepared log."""
    from recsys_core.artifacts import Artifact
    from tasks.prepared import Prepared

    data = Prepared(Artifact("prepare", "prepared", Path(prepared)))
    settings = {"epochs": epochs, "validate_every": epochs, "precision": precision}
    config = TrainingConfig.model_validate(settings)
    ndcg = data.validator(1_000_000)
    facts = trained(data.buckets, len(data.items), config, SIZE, ndcg)
    peak = gemm_peak()
    facts["gemm_peak_flops"] = peak
    facts["share_of_gemm_peak"] = facts["flops"] / min(facts["epoch_seconds"]) / peak
    return facts


def on_synthetic(folder: str, n_events: str, n_items: str) -> dict[str, Any]:
    """An epoch over a made-up log: users of 100 events on average, items of Zipf's popularity."""
    path = Path(folder) / f"synthetic-{n_events}-{n_items}.parquet"
    write_synthetic(path, int(n_events), int(n_items))
    config = TrainingConfig(epochs=1, batch_size=128, precision="fp32", ema_decay=0.0)
    return trained([path], int(n_items), config, SIZE, lambda _: 0.0)


def write_synthetic(path: Path, n_events: int, n_items: int) -> None:
    """A bucket of histories."""
    random = np.random.default_rng(0)
    drawn = np.asarray(random.geometric(1 / 98, n_events // 100)) + 2
    lengths = (drawn * (n_events / drawn.sum())).astype(np.int64).clip(3)
    items = np.exp(random.random(lengths.sum()) * np.log(n_items)).astype(np.int32)
    users = np.repeat(np.arange(len(lengths)), lengths)
    table = pl.DataFrame({"user": users, "item_idx": items}).group_by("user", maintain_order=True)
    histories = table.agg("item_idx").with_columns(
        user_id=pl.col("user").cast(pl.String),
        timestamp=pl.col("item_idx").cast(pl.List(pl.Int64)),
        event_type=pl.col("item_idx").list.eval(pl.element() * 0).cast(pl.List(pl.Int8)),
        is_target=pl.col("item_idx").list.eval(pl.element() > 0),
        train_end=pl.Series("n", lengths, dtype=pl.Int32),
        validation_end=pl.Series("n", lengths, dtype=pl.Int32),
    )
    histories.drop("user").write_parquet(path)


def trained(
    buckets: Sequence[Path],
    n_items: int,
    config: TrainingConfig,
    size: ModelConfig,
    validate: Callable[[Any], float],
) -> dict[str, Any]:
    """Train, and note what each epoch took and what it computed."""
    torch.manual_seed(config.seed)
    model = Recommender(n_items, size, None)
    training_set = TimedTrainingSet(
        buckets, max_length=size.max_length, batch_size=config.batch_size
    )
    competition = competition_of(training_set.item_counts(n_items), config)
    plain = next_item_loss(config, competition)
    work = Work(size, config.n_negatives if competition.sampled else competition.n_items)

    def loss(states: Any, vectors: Any, narrowed: Any) -> Any:
        work.count(narrowed.batch.history)
        return plain(states, vectors, narrowed)

    with tempfile.TemporaryDirectory() as checkpoint:
        curve = fit(
            model,
            training_set,
            config,
            competition=competition,
            loss=loss,
            validate=validate,
            checkpoint=Path(checkpoint),
            clock=time.monotonic,
        )
    return {
        "epoch_seconds": training_set.seconds,
        "sequences": training_set.n_windows,
        "ndcg_at_10": curve[-1].validation_ndcg_at_10,
        "flops": work.flops / config.epochs,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


class TimedTrainingSet(TrainingSet):
    """Notes how long each epoch takes, from the first batch that is asked for to after the last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: list[float] = []

    def epoch(self, epoch: int, seed: int) -> Iterator[Batch]:
        """See `TrainingSet`."""
        began = time.perf_counter()
        yield from super().epoch(epoch, seed)
        self.seconds.append(time.perf_counter() - began)


class Work:
    """Floating-point operations of forward and backward passes, padding left out.

    A matrix product costs 2 per weight and position forward and 4 backward; attention what a causal
    one needs. Element-wise work counts nothing.
    """

    def __init__(self, size: ModelConfig, n_competing: int) -> None:
        dim = size.embedding_dim
        self._per_position = 6 * (
            size.n_layers * (6 * dim * dim + 3 * dim * size.ffn_dim) + n_competing * dim
        )
        self._per_pair = 12 * size.n_layers * dim
        self.flops = 0.0

    def count(self, history: torch.Tensor) -> None:
        """Add a batch."""
        lengths = (history > 0).sum(dim=1).double()
        self.flops += float(lengths.sum()) * self._per_position
        self.flops += float((lengths * (lengths + 1) / 2).sum()) * self._per_pair


def gemm_peak() -> float:
    """Floating-point operations a second of a large fp32 matrix product: the best of several."""
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2 * PEAK_SIDE**3 / best


if __name__ == "__main__":
    main()
