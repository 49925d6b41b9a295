"""The prepared data as the training and evaluation stages read it."""

from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recsys_core.artifacts import Artifact, read_json
from recsys_core.models.content import content_features
from recsys_core.training.validation import Validator


class Prepared:
    """Typed access to the output of the prepare stage."""

    def __init__(self, artifact: Artifact) -> None:
        self.buckets: list[Path] = sorted(artifact.file("histories").glob("bucket-*.parquet"))
        self.items = pl.read_parquet(artifact.file("items.parquet"))
        self.split: dict[str, Any] = read_json(artifact.file("split.json"))

    @property
    def exclude_seen(self) -> bool:
        """Whether items in a history are not recommended again."""
        return self.split["exclude_seen"]

    def content(self, n_features: int) -> Tensor | None:
        """Content features `[n_items + 1, n_features]`; None for no features."""
        if not n_features:
            return None
        return torch.from_numpy(
            content_features(
                self.items["title"].to_list(),
                self.items["categories"].to_list(),
                n_features=n_features,
            )
        )

    def validator(self, max_cases: int) -> Validator:
        """NDCG@10 on validation events."""
        return Validator(
            self.buckets, self.items, exclude_seen=self.exclude_seen, max_cases=max_cases
        )
