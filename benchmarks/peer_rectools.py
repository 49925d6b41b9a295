# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""RecTools' SASRec on the same training events; needs its own environment.

    pip install "rectools[torch]==0.19.0" "torch==2.13.0"
    python benchmarks/peer_rectools.py FOLDER EPOCHS

Reads `train.csv` and `validation.csv` of the folder and prints a line of JSON: seconds of each
epoch, sequences, NDCG@10 on validation after the last epoch, peak memory. Imports no code of this
project.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class EpochClock(Callback):
    """Records the seconds of each epoch, shared by all copies that the trainers make."""

    seconds: ClassVar[list[float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Record the start of an epoch."""
        self._began = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Record the seconds of an epoch."""
        self.seconds.append(time.perf_counter() - self._began)


def main() -> None:
    """Train, rank the validation events and print the figures."""
    folder, epochs = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(2)
    torch.manual_seed(1)
    train = pd.read_csv(f"{folder}/train.csv")

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=epochs,
            min_epochs=epochs,
            accelerator="cpu",
            callbacks=[EpochClock()],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
        )

    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        dropout_rate=0.2,
        session_max_len=200,
        loss="softmax",
        lr=1e-3,
        batch_size=128,
        epochs=epochs,
        get_trainer_func=trainer,
    )
    dataset = Dataset.construct(
        train.rename(columns={"user_id": Columns.User, "item_id": Columns.Item}).assign(
            **{
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(train["position"], unit="s"),
            }
        )[[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]]
    )
    model.fit(dataset)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM:")) * 1024
    validation = pd.read_csv(f"{folder}/validation.csv")
    recommended = model.recommend(
        validation["user_id"].to_numpy(), dataset, k=10, filter_viewed=True
    )
    targets = validation.set_index("user_id")["item_id"]
    hits = recommended[recommended[Columns.Item] == recommended[Columns.User].map(targets)]
    gains = 1 / np.log2(1 + hits[Columns.Rank].to_numpy(dtype=float))
    ndcg = float(gains.sum()) / len(validation)
    facts = {
        "epoch_seconds": EpochClock.seconds,
        "sequences": len(train["user_id"].unique()),
        "ndcg_at_10": ndcg,
        "peak_bytes": peak,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
