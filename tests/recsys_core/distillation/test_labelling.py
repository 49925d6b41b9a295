"""The teacher reads every history once, and what is stored is what it said."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.soft_labels import SoftLabels, describe
from recsys_core.distillation.labelling import label_bucket, label_windows
from recsys_core.models.recommender import ModelConfig, Recommender

N_ITEMS = 300
CONFIG = ModelConfig(embedding_dim=32, n_layers=2, n_heads=2, ffn_dim=32, max_length=8)
LENGTHS = [1, 2, 8, 9, 10, 25, 0, 40]


@given(
    st.lists(st.integers(0, 60), max_size=6),
    st.integers(2, 21),
    st.none() | st.integers(1, 30),
)
def test_each_position_is_labelled_once_with_enough_of_its_past(
    lengths: list[int], max_length: int, newest: int | None
) -> None:
    histories = ResidentHistories(
        user_ids=pl.Series([str(user) for user in range(len(lengths))], dtype=pl.String),
        items=np.ones(sum(lengths), np.int32),
        target_weights=np.ones(sum(lengths), np.float32),
        kinds=np.zeros(sum(lengths), np.int8),
        times=np.zeros(sum(lengths), np.int64),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    labelled: list[int] = []
    windows = label_windows(histories, max_length, newest)
    for start, end, label_from in zip(*windows, strict=True):
        user = int(np.searchsorted(histories.starts, start, side="right")) - 1
        assert histories.starts[user] <= start <= label_from < end
        assert end < histories.starts[user + 1], "the last training event gets no label"
        assert end - start <= max_length
        for event in range(label_from, end):
            past = event - int(histories.starts[user])
            assert event - start >= min(past, max_length // 2)
            labelled.append(event)
    expected = [
        int(begin) + position
        for begin, length in zip(histories.starts, lengths, strict=False)
        for position in range(max(0, length - 1 - newest if newest else 0), max(0, length - 1))
    ]
    assert sorted(labelled) == expected
    assert np.all(np.diff(windows.ends - windows.starts) >= 0)


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


def test_the_stored_state_is_the_teachers(
    tmp_path: Path, bucket: Path, teacher: Recommender
) -> None:
    path = tmp_path / "labels" / bucket.name
    n_labels = label_bucket(teacher, bucket, path, batch_size=3)
    table = pl.read_parquet(path)
    assert n_labels == table.height == sum(max(0, length - 1) for length in LENGTHS)
    assert table.select("user_id", "position").rows() == [
        (f"u{length:02d}", place) for length in sorted(LENGTHS) for place in range(length - 1)
    ]
    histories = dict(pl.read_parquet(bucket).select("user_id", "item_idx").rows())
    with torch.inference_mode():
        for user, position, start, _, state, scale in table.rows():
            assert position - start < CONFIG.max_length
            window = torch.tensor([histories[user][start : position + 1]])
            exact = teacher.encode(window, teacher.item_vectors())[0, -1].numpy()
            np.testing.assert_allclose(np.array(state) * scale, exact, atol=0.51 * scale)


def test_the_newest_are_labelled_as_all_are(
    tmp_path: Path, bucket: Path, teacher: Recommender
) -> None:
    everything, few = (tmp_path / name / bucket.name for name in ("all", "few"))
    label_bucket(teacher, bucket, everything)
    assert label_bucket(teacher, bucket, few, newest=3) == sum(
        min(3, max(0, length - 1)) for length in LENGTHS
    )
    chosen = pl.read_parquet(everything).join(
        pl.read_parquet(few), on=["user_id", "position", "window_start", "prefix_hash"], how="right"
    )
    assert chosen["state"].null_count() == 0
    error = chosen["state"].to_numpy().astype(int) - chosen["state_right"].to_numpy().astype(int)
    assert np.abs(error).max() <= 1


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
    rows = np.flatnonzero(np.isfinite(labels.scales))
    states = torch.from_numpy(labels.states[rows] * labels.scales[rows, None])
    exact: list[torch.Tensor] = []
    starts = pl.read_parquet(path)["window_start"].to_list()
    users = np.searchsorted(histories.starts, rows, side="right") - 1
    with torch.inference_mode():
        for row, user, start in zip(rows, users, starts, strict=True):
            window = histories.items[histories.starts[user] + start : row + 1].astype(np.int64)
            exact.append(teacher.encode(torch.from_numpy(window)[None], vectors)[0, -1])
    kept = torch.from_numpy(store.item_vectors())[1:]
    stored = (states @ kept.T).log_softmax(dim=1)
    expected = (torch.stack(exact) @ vectors[1:].T).log_softmax(dim=1)
    divergence = F.kl_div(stored, expected, reduction="batchmean", log_target=True)
    assert 0 < divergence.item() < 3e-4


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
        assert np.isfinite(labels.scales).sum() == (2 if len(group) == 3 else 0)
