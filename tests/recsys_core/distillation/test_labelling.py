"""The teacher reads every history once, and what is stored is what it said."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from pyarrow.parquet import ParquetFile

from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.soft_labels.factorized import StateLabels, describe
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation import labelling
from recsys_core.distillation.labelling import TopItems, label_bucket
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batching import TrainingSet

N_ITEMS = 300
CONFIG = ModelConfig(embedding_dim=32, n_layers=2, n_heads=2, ffn_dim=32, max_length=8)
LENGTHS = [1, 2, 8, 9, 10, 25, 0, 40]


@pytest.fixture(scope="module")
def teacher() -> Recommender:
    torch.manual_seed(0)
    model = Recommender(N_ITEMS, CONFIG, None).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture
def bucket(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> Path:
    random = np.random.default_rng(0)
    users = [
        (f"u{length:02d}", random.integers(1, N_ITEMS + 1, length + 2).tolist(), length, length + 1)
        for length in LENGTHS
    ]
    return write_buckets(tmp_path / "histories", [users])[0]


def test_the_stored_state_is_what_the_teacher_says_of_the_window(
    tmp_path: Path, bucket: Path, teacher: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels" / bucket.name
    monkeypatch.setattr(labelling, "_PART_POSITIONS", 20)
    n_labels = label_bucket(teacher, bucket, path, max_length=6, batch_size=3)
    table = pl.read_parquet(path)
    assert n_labels == table.height
    assert ParquetFile(path).num_row_groups > 3
    covered = table.select("user_id", "position").unique()
    assert covered.height == sum(max(0, length - 1) for length in LENGTHS)
    histories = dict(pl.read_parquet(bucket).select("user_id", "item_idx").rows())
    with torch.inference_mode():
        for user, start, position, _, state, scale in table.rows():
            assert 0 <= position - start < 6
            window = torch.tensor([histories[user][start : position + 1]])
            exact = teacher.encode(window, teacher.item_vectors())[0, -1].numpy()
            np.testing.assert_allclose(np.array(state) * scale, exact, atol=0.51 * scale)


def test_the_newest_are_labelled_as_all_are(
    tmp_path: Path, bucket: Path, teacher: Recommender
) -> None:
    everything, few = (tmp_path / name / bucket.name for name in ("all", "few"))
    label_bucket(teacher, bucket, everything)
    n_labels = label_bucket(teacher, bucket, few, newest=3)
    assert n_labels == sum(min(8, max(0, length - 1)) for length in LENGTHS)
    chosen = pl.read_parquet(everything).join(
        pl.read_parquet(few), on=["user_id", "position", "window_start", "prefix_hash"], how="right"
    )
    assert chosen["state"].null_count() == 0
    error = chosen["state"].to_numpy().astype(int) - chosen["state_right"].to_numpy().astype(int)
    assert np.abs(error).max() <= 1


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_top_items_are_those_that_compete_with_the_highest_scores(
    tmp_path: Path, bucket: Path, teacher: Recommender, exclude_seen: bool
) -> None:
    occurs = np.ones(N_ITEMS + 1, np.bool_)
    occurs[::3] = False
    path = tmp_path / "labels" / bucket.name
    label_bucket(teacher, bucket, path, batch_size=3, top=TopItems(5, occurs, exclude_seen))
    vectors = teacher.item_vectors().detach()
    histories = dict(pl.read_parquet(bucket).select("user_id", "item_idx").rows())
    table = pl.read_parquet(path)
    for user, start, position, top_ids in table.select(
        "user_id", "window_start", "position", "top_ids"
    ).rows():
        with torch.no_grad():
            window = torch.tensor([histories[user][start : position + 1]])
            scores = vectors @ teacher.encode(window, vectors)[0, -1]
        scores[torch.from_numpy(~occurs)] = -torch.inf
        if exclude_seen:
            scores[histories[user][: position + 1]] = -torch.inf
        scores[0] = -torch.inf
        assert top_ids == scores.topk(5).indices.tolist()


def test_a_batch_has_the_top_items_of_each_position(
    tmp_path: Path, bucket: Path, teacher: Recommender
) -> None:
    """Four items can be a top item, so the fifth place is empty."""
    occurs = np.isin(np.arange(N_ITEMS + 1), [3, 4, 5, 6])
    path = tmp_path / "labels" / bucket.name
    label_bucket(teacher, bucket, path, top=TopItems(5, occurs, exclude_seen=False))
    vectors = teacher.item_vectors().detach()
    describe(
        tmp_path,
        teacher="t",
        item_index_sha256="i",
        trained_through=None,
        item_vectors=vectors.numpy(),
        top_k=5,
    )
    store = SoftLabels(tmp_path, item_index_sha256="i")
    assert store.description.columns == ("state", "scale", "top_ids")
    assert store.description.value_bytes == 32 + 4 + 5 * 4
    training_set = TrainingSet([bucket], max_length=8, batch_size=3, labels=store)
    for batch in training_set.epoch(0, 1):
        assert batch.teacher_states is not None
        assert batch.sparse_labels is not None
        ranked = 3 + (batch.teacher_states @ vectors[3:7].T).argsort(dim=1, descending=True)
        assert torch.equal(batch.sparse_labels.top_ids, F.pad(ranked, (0, 1)))


def test_a_teacher_that_reads_less_than_its_student_is_refused(
    tmp_path: Path, bucket: Path, teacher: Recommender
) -> None:
    with pytest.raises(ValueError, match="windows of 9 events, its teacher only 8"):
        label_bucket(teacher, bucket, tmp_path / "labels" / bucket.name, max_length=9)


def test_rounding_costs_next_to_nothing(tmp_path: Path, bucket: Path, teacher: Recommender) -> None:
    """The bound on the mean is ten times what was measured with a real teacher."""
    path = tmp_path / "soft" / "labels" / bucket.name
    path.parent.mkdir(parents=True)
    label_bucket(teacher, bucket, path)
    vectors = teacher.item_vectors().detach()
    describe(
        tmp_path / "soft",
        teacher="t",
        item_index_sha256="i",
        trained_through=None,
        item_vectors=vectors.numpy(),
    )
    store = SoftLabels(tmp_path / "soft", item_index_sha256="i")
    histories = read_training_histories([bucket])
    labels = store.align(histories, [bucket])
    assert isinstance(labels, StateLabels)
    kept = torch.from_numpy(store.item_vectors())[1:]
    divergences: list[torch.Tensor] = []
    with torch.inference_mode():
        for _, start, end, row in zip(*labels.windows, labels.rows, strict=True):
            window = torch.from_numpy(histories.items[start : end - 1].astype(np.int64))
            expected = teacher.encode(window[None], vectors)[0] @ vectors[1:].T
            rows = slice(row, row + end - start - 1)
            states = torch.from_numpy(labels.states[rows] * labels.scales[rows, None])
            stored, exact = (states @ kept.T).log_softmax(1), expected.log_softmax(1)
            divergences.append(F.kl_div(stored, exact, reduction="none", log_target=True).sum(1))
    assert len(torch.cat(divergences)) == len(labels.states)
    assert 0 < torch.cat(divergences).mean().item() < 3e-4


def test_buckets_without_positions_are_written_too(
    tmp_path: Path,
    teacher: Recommender,
    write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]],
) -> None:
    paths = write_buckets(
        tmp_path / "few", [[], [("a", [3, 4], 1, 2), ("b", [5], 0, 0)], [("c", [1, 2, 3], 3, 3)]]
    )
    counts = [label_bucket(teacher, path, tmp_path / "labels" / path.name) for path in paths]
    assert counts == [0, 0, 2]
    describe(
        tmp_path,
        teacher="t",
        item_index_sha256="i",
        trained_through=None,
        item_vectors=teacher.item_vectors().detach().numpy(),
    )
    store = SoftLabels(tmp_path, item_index_sha256="i")
    for group in (paths[:1], paths[:2], paths):
        labels = store.align(read_training_histories(group), group)
        assert isinstance(labels, StateLabels)
        assert len(labels.states) == (2 if len(group) == 3 else 0)
