"""One training in its own process, for benchmarks.training_speed; prints a line of JSON.

python -m benchmarks.training_worker ml-1m PREPARED EPOCHS PRECISION [DEVICE]
python -m benchmarks.training_worker synthetic FOLDER EVENTS ITEMS
python -m benchmarks.training_worker wide FOLDER DEVICE [fused]
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.harness import peak_bytes
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batch import Batch
from recsys_core.training.batching import TrainingSet
from recsys_core.training.loop import TrainingConfig, fit
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss

SIZE = ModelConfig(embedding_dim=64, n_layers=2, n_heads=2, ffn_dim=128, max_length=200)
WIDE = ModelConfig(embedding_dim=512, n_layers=8, n_heads=8, ffn_dim=1024, max_length=200)
PEAK_SIDE = {"cpu": 2048, "cuda": 8192}


def main() -> None:
    """Train and print the figures."""
    torch.set_num_threads(2)
    what, *arguments = sys.argv[1:]
    on = {"ml-1m": on_ml_1m, "synthetic": on_synthetic, "wide": on_wide}
    print(json.dumps(on[what](*arguments)))


def on_ml_1m(prepared: str, epochs: str, precision: str, device: str = "cpu") -> dict[str, Any]:
    """Speed, quality and share of the processor's GEMM peak on a prepared log."""
    from recsys_core.artifacts import Artifact
    from tasks.training.prepared import Prepared

    data = Prepared(Artifact("prepare", "prepared", Path(prepared)))
    settings = {"epochs": epochs, "validate_every": epochs, "precision": precision}
    config = TrainingConfig.model_validate(settings)
    ndcg = data.validator(1_000_000)
    facts = trained(data.buckets, len(data.items), config, SIZE, ndcg, device)
    return facts | share_of_peak(facts, device, precision)


def on_synthetic(folder: str, n_events: str, n_items: str) -> dict[str, Any]:
    """An epoch over a synthetic log: 100 events per user on average, Zipf popularity of items."""
    path = Path(folder) / f"synthetic-{n_events}-{n_items}.parquet"
    write_synthetic(path, int(n_events), int(n_items))
    config = TrainingConfig(epochs=1, batch_size=128, precision="fp32", ema_decay=0.0)
    return trained([path], int(n_items), config, SIZE, lambda _: 0.0)


def on_wide(folder: str, device: str, loss: str = "chunked") -> dict[str, Any]:
    """Two epochs of a network for a GPU, width 512 and 8 layers, over 20,000 items."""
    path = Path(folder) / "synthetic-wide.parquet"
    write_synthetic(path, 3_000_000, 20_000)
    fused = loss == "fused"
    config = TrainingConfig(epochs=2, batch_size=256, validate_every=2, fused_loss=fused)
    facts = trained([path], 20_000, config, WIDE, lambda _: 0.0, device)
    return facts | share_of_peak(facts, device, "bf16")


def share_of_peak(facts: dict[str, Any], device: str, precision: str) -> dict[str, float]:
    """The peak of a large matrix product on the device, and the share that training reached."""
    peak = gemm_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    reached = facts["flops"] / min(facts["epoch_seconds"])
    return {"gemm_peak_flops": peak, "share_of_gemm_peak": reached / peak}


def write_synthetic(path: Path, n_events: int, n_items: int) -> None:
    """Write a bucket of histories."""
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
        target_weight=pl.col("item_idx").list.eval(pl.lit(1.0, pl.Float32)),
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
    device: str = "cpu",
) -> dict[str, Any]:
    """Train and record the seconds and the operations of each epoch."""
    torch.manual_seed(config.seed)
    model = Recommender(n_items, size, None).to(device)
    training_set = TimedTrainingSet(
        buckets, max_length=size.max_length, batch_size=config.batch_size
    )
    candidates = candidate_set_of(training_set.item_counts(n_items), config)
    plain = next_item_loss(config, candidates)
    work = Work(size, config.n_negatives if candidates.sampled else candidates.n_items)

    def loss(states: Any, vectors: Any, restricted: Any) -> Any:
        work.count(restricted.batch.history)
        return plain(states, vectors, restricted)

    with tempfile.TemporaryDirectory() as checkpoint:
        curve = fit(
            model,
            training_set,
            config,
            candidates=candidates,
            loss=loss,
            validate=validate,
            checkpoint=Path(checkpoint),
            clock=time.monotonic,
        )
    on_gpu = device == "cuda"
    return {
        "epoch_seconds": training_set.seconds,
        "sequences": training_set.n_windows,
        "tokens": work.tokens // config.epochs,
        "ndcg_at_10": curve[-1].validation_ndcg_at_10,
        "flops": work.flops / config.epochs,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else peak_bytes(),
    }


class TimedTrainingSet(TrainingSet):
    """Records the seconds of each epoch, from the request of its first batch to its end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: list[float] = []

    def epoch(self, epoch: int, seed: int) -> Iterator[Batch]:
        """See `TrainingSet`."""
        began = time.perf_counter()
        yield from super().epoch(epoch, seed)
        self.seconds.append(time.perf_counter() - began)


class Work:
    """Floating-point operations of forward and backward passes, without padding.

    A matrix product costs 2 per weight and position forward and 4 backward. Attention counts as
    causal. Element-wise operations are not counted.
    """

    def __init__(self, size: ModelConfig, n_candidates: int) -> None:
        dim = size.embedding_dim
        self._per_position = 6 * (
            size.n_layers * (6 * dim * dim + 3 * dim * size.ffn_dim) + n_candidates * dim
        )
        self._per_pair = 12 * size.n_layers * dim
        self.flops = 0.0
        self.tokens = 0

    def count(self, history: torch.Tensor) -> None:
        """Add a batch."""
        lengths = (history > 0).sum(dim=1).double()
        self.tokens += int(lengths.sum())
        self.flops += float(lengths.sum()) * self._per_position
        self.flops += float((lengths * (lengths + 1) / 2).sum()) * self._per_pair


def gemm_peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product: the best of several."""
    side = PEAK_SIDE[device]
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


if __name__ == "__main__":
    main()
