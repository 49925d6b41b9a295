"""How fast networks train on a CPU, beside a peer and beside what the processor can do.

    python -m benchmarks.training_speed [--data DIR] [--peer-python PYTHON] [--epochs 3]

PYTHON is that of an environment with RecTools (see benchmarks/peer_rectools.py); without it the
peer's row is left out. Each row is a process of its own with two threads, on ml-1m: width 64, 2
layers, histories of 200, full softmax. Then synthetic logs of growing size, and a catalogue of a
million items, where negatives are drawn.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.harness import finish, options
from flows.environment import set_default_environment

GROWTH = (1_000_000, 3_000_000, 10_000_000)
HERE = Path(__file__).parent


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--config", type=Path, default=Path("infra/configs/ml-1m.toml"))
    parser.add_argument("--workspace", type=Path, default=Path("workspace/training-speed"))
    parser.add_argument("--peer-python", type=Path, help="of an environment with RecTools")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    set_default_environment(args.workspace)
    from benchmarks.prepared import prepared_artifact
    from flows.config import load_config

    config = load_config(args.config, data=args.data).model_copy(
        update={"workspace": args.workspace}
    )
    prepared = prepared_artifact(config)
    epochs = 1 if args.quick else args.epochs
    figures: dict[str, Any] = {}
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(dir=args.workspace) as scratch:
        folder = Path(scratch)
        for precision in ("fp32", "bf16"):
            ours = worker("ml-1m", str(prepared.folder), str(epochs), precision)
            figures[precision] = ours
            rows.append(row(f"recdistill, {precision}", ours))
        if args.peer_python:
            hand_over(prepared.folder, folder)
            script = [str(args.peer_python), str(HERE / "peer_rectools.py")]
            peer = run([*script, str(folder), str(epochs)])
            figures["peer"] = peer
            rows.append(row("RecTools SASRec", peer))
        for n_events in GROWTH[:1] if args.quick else GROWTH:
            grown = worker("synthetic", str(folder), str(n_events), "20000")
            figures[f"events_{n_events}"] = grown
            rows.append(row(f"{n_events / 1e6:.0f} M events, 20 k items", grown))
        wide = worker("synthetic", str(folder), str(GROWTH[0]), "1000000")
        figures["items_1000000"] = wide
        rows.append(row("1 M events, 1 M items, drawn negatives", wide))
    figures |= ratios(figures)
    columns = ["", "s / epoch", "sequences / s", "NDCG@10", "peak GB", "share of GEMM peak"]
    finish("training_speed", columns, rows, figures, args.out)


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are asked for, of what was measured in this run."""
    ours = figures["fp32"]
    found: dict[str, float] = {"share_of_gemm_peak": ours["share_of_gemm_peak"]}
    if "peer" in figures:
        peer = figures["peer"]
        found["ratio_vs_rectools"] = sequences_per_second(ours) / sequences_per_second(peer)
        found["memory_ratio_vs_rectools"] = ours["peak_bytes"] / peer["peak_bytes"]
    return found


def sequences_per_second(facts: dict[str, Any]) -> float:
    """Of the fastest epoch, as what else the machine does only ever slows one down."""
    return facts["sequences"] / min(facts["epoch_seconds"])


def row(name: str, facts: dict[str, Any]) -> list[object]:
    """A line of the table."""
    return [
        name,
        min(facts["epoch_seconds"]),
        round(sequences_per_second(facts)),
        facts.get("ndcg_at_10"),
        facts["peak_bytes"] / 1e9,
        facts.get("share_of_gemm_peak"),
    ]


def worker(*arguments: str) -> dict[str, Any]:
    """Train in a process of its own, so that its peak memory is its own too."""
    return run([sys.executable, "-m", "benchmarks.training_worker", *arguments])


def run(command: list[str]) -> dict[str, Any]:
    """The JSON that a process prints last."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command[:3])} failed.")
    return json.loads(done.stdout.strip().splitlines()[-1])


def hand_over(prepared: Path, folder: Path) -> None:
    """Training events and validation targets as plain tables, for the peer."""
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
