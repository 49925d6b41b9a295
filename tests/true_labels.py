"""Soft labels of a teacher that knows the synthetic world's own next-item distribution."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_core.data.histories.cases import FloatArray
from recsys_core.synthetic.world import World
from tasks.contracts.network import NetworkSummary

LISTED = 30
LEAST_GAIN = 1.2
"""What `gain_over_control` is at least in the tiny night, if its student knows ids alone."""


def write_true_labels(file: Path, world_folder: Path, prepared: Path, *, but: str = "") -> int:
    """Write the likeliest next items at every training position, and return the number of rows.

    Args:
        file: JSON lines, as `recdistill soft-labels import` reads them.
        world_folder: The world that the events are of.
        prepared: Output of the prepare stage.
        but: A user whom the world does not know.
    """
    world = World.open(world_folder)
    ids = pl.read_parquet(prepared / "items.parquet").sort("item_idx")["item_id"]
    users = pl.read_parquet(prepared / "histories" / "*.parquet")
    cases: list[tuple[str, list[str], datetime]] = []
    columns = ("user_id", "item_idx", "timestamp", "train_end")
    for user_id, events, times, end in users.select(columns).iter_rows():
        history = [ids[item - 1] for item in events[:end]]
        if user_id != but:
            cases += [
                (user_id, history[:n], datetime.fromtimestamp(times[n] / 1e6, UTC))
                for n in range(1, end)
            ]
    names, probabilities = world.next_item_probabilities(
        [user for user, _, _ in cases],
        [history for _, history, _ in cases],
        [at.date() for _, _, at in cases],
    )
    rows = (
        _row(user, history, names, of_case)
        for (user, history, _), of_case in zip(cases, probabilities, strict=True)
    )
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return len(cases)


def _row(
    user: str, history: list[str], names: list[str], probabilities: FloatArray
) -> dict[str, Any]:
    best = np.argsort(-probabilities, kind="stable")[:LISTED]
    best = best[probabilities[best] > 0]
    return {
        "user_id": user,
        "n_events": len(history),
        "last_item_id": history[-1],
        "item_ids": [names[item] for item in best],
        "scores": np.log(probabilities[best]).tolist(),
    }


def gain_over_control(student: Path, control: Path) -> float:
    """NDCG@10 of the student on validation events, divided by that of its control."""
    reached = [NetworkSummary.load(one).validation_ndcg_at_10 for one in (student, control)]
    return reached[0] / reached[1]
