"""The loop: the same bits for the same seed, through any interruption."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from recsys_core.artifacts import Artifact, draft_of
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.settings import Progress, silent
from recsys_core.training import loop
from recsys_core.training.batching import TrainingSet
from recsys_core.training.checkpoint import CurvePoint
from recsys_core.training.gradients import Loss
from recsys_core.training.loop import (
    TrainingConfig,
    TrainingError,
    Validate,
    fit,
    schedule,
)
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
from recsys_core.training.negative_sampling import RestrictedBatch

SIZE = ModelConfig(embedding_dim=8, n_layers=1, n_heads=2, ffn_dim=8, max_length=8, dropout=0.2)
CONFIG = TrainingConfig(
    epochs=4, batch_size=16, learning_rate=3e-3, validate_every=2, precision="fp32", seed=7
)
STEPS = 5  # an epoch, with 60 users in batches of 16


class _Killed(BaseException):
    """Like kill -9 for what comes after."""


class Fit(NamedTuple):
    weights: dict[str, torch.Tensor]
    curve: list[CurvePoint]


def _loss(
    states: torch.Tensor, item_vectors: torch.Tensor, restricted: RestrictedBatch
) -> torch.Tensor:
    targets = restricted.batch.targets
    return next_item_cross_entropy(states, item_vectors, targets[targets > 0])


def _stopped() -> float:
    return 0.0


def _fingerprint(model: Recommender) -> float:
    """Stands for a validation: a number that follows from the weights."""
    assert not model.training
    return float(model.id_embedding.detach().double().norm())


Train = Callable[..., Fit]


@pytest.fixture
def train(obvious_world: Artifact, tmp_path: Path) -> Train:
    """Train a fresh model; the checkpoint folder is the test's own."""
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))

    def run(
        folder: str = "checkpoint",
        *,
        config: TrainingConfig = CONFIG,
        size: ModelConfig = SIZE,
        validate: Validate = _fingerprint,
        progress: Progress = silent,
        loss: Loss | None = None,
        clock: loop.Clock = _stopped,
    ) -> Fit:
        torch.manual_seed(0)
        model = Recommender(16, size, None)
        torch.manual_seed(torch.seed() % 1000)  # what came before must not matter
        training_set = TrainingSet(
            buckets, max_length=SIZE.max_length, batch_size=config.batch_size, resident_bytes=20_000
        )
        candidates = candidate_set_of(training_set.item_counts(16), config)
        curve = fit(
            model,
            training_set,
            config,
            candidates=candidates,
            loss=loss or next_item_loss(config, candidates),
            validate=validate,
            checkpoint=tmp_path / folder,
            clock=clock,
            progress=progress,
        )
        assert not model.training
        return Fit({k: v.clone() for k, v in model.state_dict().items()}, curve)

    return run


def _same(one: Fit, other: Fit) -> bool:
    return one.curve == other.curve and all(
        torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items()
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bits(train: Train, precision: str) -> None:
    config = CONFIG.model_copy(update={"precision": precision})
    first, second = train("first", config=config), train("second", config=config)
    assert _same(first, second)
    other = train("other", config=config.model_copy(update={"seed": 8}))
    assert not _same(first, other)
    assert [point.epoch for point in first.curve] == [1, 2, 3, 4]
    assert [point.validation_ndcg_at_10 is None for point in first.curve] == [True, False] * 2
    assert first.curve[-1].loss < first.curve[0].loss < math.log(16) + 0.1


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("saves_at", ["epoch", "step"])
@pytest.mark.parametrize("calls", [0, 3, 6, 7, 12, 13, 14, 20])
def test_a_kill_in_the_middle_leaves_no_trace(
    train: Train, calls: int, saves_at: str, loss: str
) -> None:
    """Progress is told after each step and each validation, so this is a kill anywhere."""
    ema_decay = 0.0 if loss == "softmax" else 0.9
    config = CONFIG.model_copy(update={"ema_decay": ema_decay, "loss": loss, "n_negatives": 12})
    hours = itertools.count(step=3600.0)
    clock = _stopped if saves_at == "epoch" else lambda: next(hours)
    undisturbed = train("undisturbed", config=config)
    left = calls

    def kill(fraction: float, message: str) -> None:
        nonlocal left
        assert 0 <= fraction <= 1
        if left == 0:
            raise _Killed
        left -= 1

    with pytest.raises(_Killed):
        train("resumed", config=config, clock=clock, progress=kill)
    assert _same(train("resumed", config=config), undisturbed)


def test_a_checkpoint_within_an_epoch_saves_its_steps(train: Train) -> None:
    hours = itertools.count(step=3600.0)
    n_steps = 0

    def counted(
        states: torch.Tensor, vectors: torch.Tensor, restricted: RestrictedBatch
    ) -> torch.Tensor:
        nonlocal n_steps
        n_steps += 1
        return _loss(states, vectors, restricted)

    def kill(_: float, __: str) -> None:
        if n_steps == 3:
            raise _Killed

    with pytest.raises(_Killed):
        train(clock=lambda: next(hours), progress=kill, loss=counted)
    train(loss=counted)
    assert n_steps == CONFIG.epochs * STEPS


@pytest.mark.parametrize("validations", [0, 1])
def test_a_kill_during_validation_leaves_no_trace(train: Train, validations: int) -> None:
    undisturbed = train("undisturbed")
    done = 0

    def kill(model: Recommender) -> float:
        nonlocal done
        if done == validations:
            raise _Killed
        done += 1
        return _fingerprint(model)

    with pytest.raises(_Killed):
        train("resumed", validate=kill)
    assert _same(train("resumed"), undisturbed)


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
def test_a_kill_while_the_checkpoint_is_written_leaves_no_trace(
    train: Train, saved: int, tmp_path: Path
) -> None:
    """The facts that name the new weights can't be written, and the weights are cut off."""
    undisturbed = train("undisturbed")
    folder = tmp_path / "resumed"
    obstacle = draft_of(folder / "training.json")

    def obstruct(fraction: float, _: str) -> None:
        if fraction * CONFIG.epochs == saved + 1:  # the epoch's end, before its checkpoint
            obstacle.mkdir(parents=True, exist_ok=True)

    with pytest.raises(IsADirectoryError):
        train("resumed", progress=obstruct)
    newest = folder / f"checkpoint-{(saved + 1) % 2}.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    obstacle.rmdir()
    assert _same(train("resumed"), undisturbed)


def test_a_finished_training_is_not_repeated(train: Train) -> None:
    first = train()

    def never(*_: object) -> float:
        raise AssertionError

    assert _same(train(validate=never, progress=never, loss=never), first)


def test_the_best_validated_weights_are_kept(train: Train) -> None:
    scores = iter([0.5, 0.9, 0.9, 0.1, 0.2, 0.3])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: Recommender) -> float:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(scores)

    config = CONFIG.model_copy(update={"validate_every": 1, "epochs": 20, "patience": 3})
    result = train(config=config, validate=validate)
    assert len(result.curve) == 5, "stops after three validations without a new best"
    assert all(torch.equal(seen[1][name], result.weights[name]) for name in seen[1])
    assert not torch.equal(seen[1]["id_embedding"], seen[4]["id_embedding"])


def test_patience_goes_on_counting_after_a_kill(train: Train) -> None:
    config = CONFIG.model_copy(update={"validate_every": 1, "epochs": 20, "patience": 3})
    scores = iter([0.5, 0.4])

    def killed(model: Recommender) -> float:
        score = next(scores, None)
        if score is None:
            raise _Killed
        return score

    with pytest.raises(_Killed):
        train(config=config, validate=killed)
    result = train(config=config, validate=lambda _: 0.4)
    assert [point.validation_ndcg_at_10 for point in result.curve] == [0.5, 0.4, 0.4, 0.4]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_loss_stops_training_with_a_remedy(train: Train, value: float) -> None:
    def broken(
        states: torch.Tensor, vectors: torch.Tensor, restricted: RestrictedBatch
    ) -> torch.Tensor:
        return _loss(states, vectors, restricted) * value

    sentence = r"not finite at step 0\. Lower learning_rate \(now 0\.003\) or set precision"
    with pytest.raises(TrainingError, match=sentence):
        train(loss=broken)


def test_a_broken_gradient_leaves_the_last_good_checkpoint(train: Train, tmp_path: Path) -> None:
    """The loss itself is finite: sqrt at 0 has no slope."""
    steps = itertools.count()

    def broken(
        states: torch.Tensor, vectors: torch.Tensor, restricted: RestrictedBatch
    ) -> torch.Tensor:
        healthy = _loss(states, vectors, restricted)
        return healthy if next(steps) < STEPS + 2 else healthy + (states.sum() * 0).sqrt()

    with pytest.raises(TrainingError, match="last good checkpoint"):
        train(loss=broken)
    assert _same(train(), train("undisturbed"))


def test_the_schedule_warms_up_and_ends_at_one_percent() -> None:
    shares = [schedule(step, 100, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert max(shares) == 1
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[55] == pytest.approx(0.01 + 0.99 / 2)
    assert shares[-1] == pytest.approx(0.01, abs=1e-3)
    assert schedule(0, 1, 0.0) == schedule(0, 1, 1.0) == 1


def test_only_matrices_decay() -> None:
    model = Recommender(16, SIZE, {"text": torch.zeros(17, 3)})
    config = CONFIG.model_copy(update={"weight_decay": 0.5})
    decayed, rest = loop.make_optimizers(model, config, sparse=False)[0].param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    chosen = {names[id(parameter)] for parameter in decayed["params"]}
    assert "blocks.0.ffn.up.weight" in chosen
    assert "content.projections.0.weight" in chosen
    assert not chosen & {"id_embedding", "position_embedding", "final_norm.weight"}
    assert len(decayed["params"]) + len(rest["params"]) == len(names)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)


def test_what_is_validated_is_the_average(train: Train) -> None:
    """With as many steps as it remembers, the average has moved less than the weights."""
    far = train("plain", config=CONFIG.model_copy(update={"ema_decay": 0.0}))
    near = train("average", config=CONFIG.model_copy(update={"ema_decay": 0.99}))
    torch.manual_seed(0)
    initial = Recommender(16, SIZE, None).state_dict()["id_embedding"]
    moved, average = (float((fit.weights["id_embedding"] - initial).norm()) for fit in (far, near))
    assert 0.2 * moved < average < moved
    assert [point.loss for point in near.curve] == [point.loss for point in far.curve]


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "gbce"])
def test_every_loss_learns(train: Train, loss: str) -> None:
    config = CONFIG.model_copy(update={"loss": loss, "n_negatives": 12, "epochs": 12})
    curve = train(config=config).curve
    assert curve[-1].loss < 0.95 * curve[0].loss
