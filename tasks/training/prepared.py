"""The prepared data, for the training and evaluation stages."""

from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys_core.artifacts import Artifact
from recsys_core.data.histories.cases import FloatArray
from recsys_core.evaluation.popularity import cold_start_by_item
from recsys_core.models.content import HASHED_TEXT, content_features, embedding_features
from recsys_core.models.fusion import Content
from recsys_core.training.validation import Validator
from tasks.contracts.split import Split


class Prepared:
    """The output of the prepare stage.

    Attributes:
        buckets: Files of the histories.
        items: `items.parquet`, sorted by item_idx.
        split: `split.json`.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.buckets: list[Path] = sorted(artifact.file("histories").glob("bucket-*.parquet"))
        self.items = pl.read_parquet(artifact.file("items.parquet"))
        self._embeddings = artifact.file("embeddings.parquet")
        self.split = Split.load(artifact)

    @property
    def exclude_seen(self) -> bool:
        """Whether items in a history are left out of its candidates."""
        return self.split.exclude_seen

    def content(self, n_text_features: int) -> Content | None:
        """Content of the items by modality: their text, and the catalogue's embedding columns.

        Args:
            n_text_features: Width of the hashed titles and categories; 0 for none.

        Returns:
            None without any content.
        """
        content: dict[str, Tensor] = {}
        if n_text_features:
            titles, categories = self.items["title"].to_list(), self.items["categories"].to_list()
            hashed = content_features(titles, categories, n_features=n_text_features)
            content[HASHED_TEXT] = torch.from_numpy(hashed)
        embeddings = pl.read_parquet(self._embeddings)
        for column in embeddings.drop("item_idx"):
            content[column.name] = torch.from_numpy(embedding_features(column))
        return content or None

    def embedding_widths(self) -> dict[str, int]:
        """Width of each embedding column."""
        columns = pl.read_parquet(self._embeddings).drop("item_idx")
        return {column.name: embedding_features(column).shape[1] for column in columns}

    def cold_start(self) -> FloatArray:
        """Scores after an empty history, `[n_items + 1]` by item_idx: recent popularity."""
        return cold_start_by_item(self.items)

    def validator(self, max_cases: int) -> Validator:
        """NDCG@10 on validation events."""
        return Validator(
            self.buckets, self.items, exclude_seen=self.exclude_seen, max_cases=max_cases
        )
