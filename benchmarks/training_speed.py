"""Training speed on a CPU, compared with RecTools and with the processor's peak.

    python -m benchmarks.training_speed [--data DIR] [--peer-python PYTHON] [--epochs 3] [--part …]

PYTHON is the interpreter of an environment with RecTools (see benchmarks/peer_rectools.py); without
it that row is left out. Each row runs in its own process with two threads, on ml-1m: width 64, 2
layers, histories of 200, full softmax. Then follow synthetic logs of growing size, and a catalogue
of a million items with sampled negatives. With a GPU, ml-1m and a wide network also run on it.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import finish, options
from flows.services.environment import set_default_environment

GROWTH = (1_000_000, 3_000_000, 10_000_000)
HERE = Path(__file__).parent
OURS, PEER = "recdistill", "RecTools SASRec"


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, default=Path("infra/configs/ml-1m.toml"))
    parser.add_argument("--workspace", type=Path, default=Path("workspace/training-speed"))
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter of an environment with RecTools"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--part", choices=["all", "ml-1m", "growth"], default="all")
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.prepared import prepared_artifact
    from flows.config import load_config

    config = load_config(args.config, data=args.data).model_copy(
        update={"workspace": args.workspace}
    )
    figures: dict[str, Any] = {}
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(dir=args.workspace) as scratch:
        folder = Path(scratch)
        if args.part != "growth":
            prepared = prepared_artifact(config).folder
            measured = on_ml_1m(
                prepared, folder, 1 if args.quick else args.epochs, args.peer_python
            )
            for name, facts in measured:
                figures[name] = facts
                rows.append(row(name, facts))
        if args.part != "ml-1m":
            for name, facts in growing(folder, GROWTH[:1] if args.quick else GROWTH):
                figures[name] = facts
                rows.append(row(name, facts))
    figures |= ratios(figures)
    columns = ["", "s / epoch", "sequences / s", "NDCG@10", "peak GB", "share of GEMM peak"]
    finish("training_speed", columns, rows, figures, args.out)


def on_ml_1m(
    prepared: Path, folder: Path, epochs: int, peer_python: Path | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of this project and of RecTools on ml-1m, also on a GPU if there is one."""
    import torch

    log = ("ml-1m", str(prepared), str(epochs))
    for precision in ("fp32", "bf16"):
        yield f"{OURS} {precision}", worker(*log, precision)
    if peer_python:
        hand_over(prepared, folder)
        script = [str(peer_python), str(HERE / "peer_rectools.py")]
        yield PEER, run([*script, str(folder), str(epochs)])
    if torch.cuda.is_available():
        for precision in ("fp32", "bf16"):
            yield f"{OURS} {precision}, GPU", worker(*log, precision, "cuda")
        yield "width 512, 8 layers, bf16, GPU", worker("wide", str(folder), "cuda")
        yield "the same, fused loss", worker("wide", str(folder), "cuda", "fused")


def growing(folder: Path, sizes: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Logs of growing size, and many items."""
    for n_events in sizes:
        grown = worker("synthetic", str(folder), str(n_events), "20000")
        yield f"{n_events / 1e6:.0f} M events, 20 k items", grown
    many = worker("synthetic", str(folder), str(sizes[0]), "1000000")
    yield "1 M events, 1 M items, drawn negatives", many


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """The ratios that this run could measure."""
    ours = figures.get(f"{OURS} fp32")
    if ours is None:
        return {}
    measured: dict[str, float] = {"share_of_gemm_peak": ours["share_of_gemm_peak"]}
    if PEER in figures:
        peer = figures[PEER]
        measured["ratio_vs_rectools"] = sequences_per_second(ours) / sequences_per_second(peer)
        measured["memory_ratio_vs_rectools"] = ours["peak_bytes"] / peer["peak_bytes"]
    return measured


def sequences_per_second(facts: dict[str, Any]) -> float:
    """Sequences per second of the fastest epoch, because other load only slows an epoch down."""
    return facts["sequences"] / min(facts["epoch_seconds"])


def row(name: str, facts: dict[str, Any]) -> list[object]:
    """A row of the table."""
    return [
        name,
        min(facts["epoch_seconds"]),
        round(sequences_per_second(facts)),
        facts.get("ndcg_at_10"),
        facts["peak_bytes"] / 1e9,
        facts.get("share_of_gemm_peak"),
    ]


def worker(*arguments: str) -> dict[str, Any]:
    """Train in a separate process, so that its peak memory is its own."""
    return run([sys.executable, "-m", "benchmarks.training_worker", *arguments])


def run(command: list[str]) -> dict[str, Any]:
    """Run a process and read the JSON that it prints last."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command[:3])} failed.")
    return json.loads(done.stdout.strip().splitlines()[-1])


def hand_over(prepared: Path, folder: Path) -> None:
    """Write training events and validation targets as CSV files for RecTools."""
    users = pl.read_parquet(str(prepared / "histories" / "bucket-*.parquet")).with_columns(
        position=pl.int_ranges(pl.col("item_idx").list.len())
    )
    train = users.select(
        "user_id",
        pl.col("item_idx").list.head("train_end").alias("item_id"),
        pl.col("position").list.head("train_end"),
    )
    train.explode("item_id", "position").write_csv(folder / "train.csv")
    held_out = users.filter(pl.col("validation_end") > pl.col("train_end"))
    held_out.select("user_id", item_id=pl.col("item_idx").list.get(pl.col("train_end"))).write_csv(
        folder / "validation.csv"
    )


if __name__ == "__main__":
    main()
