"""A training under torchrun: trains on the buckets of a folder and writes the curve as JSON.

torchrun --nproc-per-node N distributed_training.py BUCKETS OUT LOSS BATCH_SIZE
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed

from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batching import TrainingSet
from recsys_core.training.loop import TrainingConfig, fit
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss


def main() -> None:
    buckets, out, loss, batch_size = sys.argv[1:]
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    size = ModelConfig(embedding_dim=8, n_layers=1, n_heads=2, ffn_dim=8, max_length=8, dropout=0.0)
    config = TrainingConfig.model_validate(
        {
            "epochs": 3,
            "batch_size": int(batch_size),
            "learning_rate": 3e-3,
            "validate_every": 1,
            "precision": "fp32",
            "loss": loss,
            "n_negatives": 12,
        }
    )
    torch.manual_seed(0)
    model = Recommender(16, size, None)
    paths = sorted(Path(buckets).glob("*.parquet"))
    training_set = TrainingSet(paths, max_length=8, batch_size=config.batch_size)
    candidates = candidate_set_of(training_set.item_counts(16), config)
    curve = fit(
        model,
        training_set,
        config,
        candidates=candidates,
        loss=next_item_loss(config, candidates),
        validate=lambda trained: float(trained.id_embedding.detach().double().norm()),
        checkpoint=Path(out) / "checkpoint",
        clock=float,
    )
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    (Path(out) / f"curve-{rank}.json").write_text(json.dumps(curve))
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
