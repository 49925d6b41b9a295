"""Models that read kinds and times of events use them, and only those of the past."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.histories.cases import CaseHistories
from recsys_core.data.histories.read import read_training_histories
from recsys_core.distillation.labelling import label_bucket
from recsys_core.models.context import N_GAP_BUCKETS, Context, gap_buckets
from recsys_core.models.ensemble import Ensemble
from recsys_core.models.ranker import model_ranker
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batching import TrainingSet

N_ITEMS = 9
SECOND = 1_000_000
CONFIG = ModelConfig(
    embedding_dim=16, n_layers=2, n_heads=2, ffn_dim=12, max_length=6, event_kinds=True,
    time_gaps=True,
)  # fmt: skip
PLAIN = CONFIG.model_copy(update={"event_kinds": False, "time_gaps": False})


def _model(config: ModelConfig = CONFIG) -> Recommender:
    torch.manual_seed(0)
    model = Recommender(N_ITEMS, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _states(
    items: list[int], kinds: list[int], times: list[int], model: Recommender | None = None
) -> torch.Tensor:
    model = model or _model()
    context = Context(torch.tensor([kinds]), torch.tensor([times]) * SECOND)
    with torch.inference_mode():
        return model.encode(torch.tensor([items]), model.item_vectors(), context)[0]


def test_kinds_and_gaps_matter() -> None:
    plain = _states([1, 2, 3], [0, 0, 0], [0, 10, 20])
    other_kind = _states([1, 2, 3], [0, 1, 0], [0, 10, 20])
    other_gap = _states([1, 2, 3], [0, 0, 0], [0, 10, 90_000])
    for changed, place in ((other_kind, 1), (other_gap, 2)):
        torch.testing.assert_close(changed[:place], plain[:place])
        assert not torch.allclose(changed[place], plain[place], atol=1e-3)


def test_only_gaps_count_and_not_the_date() -> None:
    early, late = (_states([1, 2], [0, 1], [start, start + 60]) for start in (0, 1_700_000_000))
    torch.testing.assert_close(early, late)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 10**8)), min_size=2,
                max_size=6), st.data())  # fmt: skip
def test_a_state_depends_on_the_context_of_past_and_present_alone(
    events: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    items, kinds, times = map(list, zip(*events, strict=True))
    place = data.draw(st.integers(1, len(items) - 1))
    later_kinds = kinds[:place] + [kind + 1 for kind in kinds[place:]]
    later_times = times[:place] + [time + 10**7 for time in times[place:]]
    before, after = _states(items, kinds, times), _states(items, later_kinds, later_times)
    torch.testing.assert_close(after[:place], before[:place])


def test_gaps_are_sorted_by_their_logarithm() -> None:
    times = torch.tensor([[0, 1, 4, 10**12]]) * SECOND
    buckets = gap_buckets(times)[0]
    assert buckets[2].tolist()[:3] == [2, 2, 0]  # 1 + 4 and 1 + 3 seconds
    assert buckets[0].tolist() == [0, 0, 0, 0]  # what comes later is no gap
    assert buckets[3, 0] == N_GAP_BUCKETS - 1


def test_without_context_it_refuses_and_another_model_does_not_care() -> None:
    with pytest.raises(ValueError, match="give the histories' context"):
        _model().encode(torch.tensor([[1]]), _model().item_vectors())
    with pytest.raises(TypeError, match="rank `CaseHistories`"):
        model_ranker(_model())([np.array([1], np.int32)])
    plain = _model(PLAIN)
    without = plain.encode(torch.tensor([[1, 2]]), plain.item_vectors())[0]
    torch.testing.assert_close(_states([1, 2], [1, 0], [5, 6], plain), without)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    users = {
        "user_id": ["a", "b"],
        "item_idx": [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7]],
        "event_type": [[0, 1, 0, 2, 1, 1, 0, 3], [1, 0, 0]],
        "timestamp": [[t * 1000 * SECOND for t in (0, 1, 5, 50, 51, 52, 99, 999)], [7, 8, 9]],
        "target_weight": [[1.0] * 8, [1.0, 0.5, 1.0]],
        "train_end": [8, 3],
        "validation_end": [8, 3],
    }
    types = {"event_type": pl.List(pl.Int8), "item_idx": pl.List(pl.Int32),
             "target_weight": pl.List(pl.Float32), "train_end": pl.Int32}  # fmt: skip
    path = tmp_path / "bucket-000.parquet"
    pl.DataFrame(users, schema_overrides=types).write_parquet(path)
    return path


@pytest.mark.parametrize("members", [1, 2])
def test_batches_labels_and_ranker_show_the_model_the_same(
    bucket: Path, tmp_path: Path, members: int
) -> None:
    parts = [_model(CONFIG), _model(PLAIN)][:members]
    model = parts[0] if members == 1 else Ensemble(parts).eval()
    assert model.reads_context
    label_bucket(model, bucket, tmp_path / "labels.parquet")
    labels = pl.read_parquet(tmp_path / "labels.parquet").filter(user_id="b").sort("position")
    labelled = labels["state"].to_numpy() * labels["scale"].to_numpy()[:, None]

    training_set = TrainingSet([bucket], max_length=6, batch_size=1, with_context=True)
    (batch,) = (each for each in training_set.epoch(0, 1) if each.history[0, 0] == 9)
    assert batch.context is not None
    assert batch.context.kinds.tolist() == [[1, 0]]
    assert batch.weights is not None
    assert batch.weights.tolist() == [0.5, 1.0]
    with torch.inference_mode():
        trained = model.encode(batch.history, model.item_vectors(), batch.context)[0].numpy()
    np.testing.assert_allclose(labelled, trained, atol=0.02 * np.abs(trained).max())

    events = read_training_histories([bucket])
    cases = CaseHistories(
        events.items, events.kinds, events.times, events.starts[1:2], events.starts[1:2] + 2
    )
    scores = model_ranker(model)(cases)[0]
    expected = torch.from_numpy(trained[-1]) @ model.item_vectors().T
    np.testing.assert_allclose(scores, expected.detach(), rtol=1e-4, atol=1e-4)


def test_it_learns_what_only_kind_or_gap_tells(tmp_path: Path) -> None:
    """The next item follows from the kind of the last event and from the gap before it."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(200):
        kind, gap = random.integers(0, 2, 2)
        items = [1, 2, 3 + 2 * int(kind) + int(gap)]
        times = [0, (10, 10**6)[gap] * SECOND, 10**7 * SECOND]
        rows.append((f"{user}", items, [0, int(kind), 0], times, [1.0] * 3, 3, 3))
    columns = ("user_id", "item_idx", "event_type", "timestamp", "target_weight", "train_end",
               "validation_end")  # fmt: skip
    types = {"item_idx": pl.List(pl.Int32), "event_type": pl.List(pl.Int8),
             "target_weight": pl.List(pl.Float32), "train_end": pl.Int32}  # fmt: skip
    path = tmp_path / "bucket-000.parquet"
    frame = pl.DataFrame(rows, schema=list(columns), schema_overrides=types, orient="row")
    frame.write_parquet(path)
    torch.manual_seed(0)
    model = Recommender(N_ITEMS, CONFIG.model_copy(update={"dropout": 0.0}))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    training_set = TrainingSet([path], max_length=2, batch_size=50, with_context=True)
    loss = torch.tensor(torch.inf)
    for epoch in range(100):
        for batch in training_set.epoch(epoch, 0):
            vectors = model.item_vectors()
            states = model.encode(batch.history, vectors, batch.context)[:, -1]
            logits = states @ vectors[1:].T
            loss = torch.nn.functional.cross_entropy(logits, batch.targets[:, -1] - 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.1
