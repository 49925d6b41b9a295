"""Losses on draws and on scores of a list, against float64 references and the dense KL."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.losses.listed import ListTerm, listed_loss
from recsys_core.distillation.losses.sampled_kl import sampled_kl
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.distillation.losses.top_k_kl import top_k_kl
from recsys_core.distillation.losses.within_list_kl import within_list_kl
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from tests.recsys_core.distillation.sparse_problem import (
    ITEMS,
    POSITIONS,
    STATES,
    TARGETS,
    TEACHER_LOGITS,
    TOP_IDS,
    VECTORS,
    WEIGHTS,
    Loss,
    SeenRows,
    assert_equal,
    listed_logits,
    reference,
    with_gradients,
)

COUNTS = torch.tensor([5, 1, 2, 4]) * (TOP_IDS > 0)
LOG_NORMALIZER = TEACHER_LOGITS[:, 1:].logsumexp(dim=1)
TEMPERATURE = 2.0


def _samples(position: int, logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    drawn = dict(zip(TOP_IDS[position].tolist(), COUNTS[position].tolist(), strict=True))
    counts = torch.tensor([float(drawn.get(row, 0)) for row in rows], dtype=logits.dtype)
    if not counts.any():
        return logits.new_zeros(())
    student = logits[rows].log_softmax(0)
    return F.kl_div(student, counts / counts.sum(), reduction="sum")


def _coarse(position: int, logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """KL over the listed items that compete and any other item."""
    listed = TOP_IDS[position][TOP_IDS[position] > 0]
    kept = [row for row in listed.tolist() if row in rows]
    others = [row for row in rows if row not in kept]
    if not kept:
        return logits.new_zeros(())
    teacher = TEACHER_LOGITS[position].double()
    probabilities = (teacher - teacher[1:].logsumexp(0)).exp()
    rest = 1 - probabilities[listed].sum()
    outcomes, scores = probabilities[kept], logits[kept]
    if others:
        outcomes = torch.cat([outcomes, rest[None]])
        scores = torch.cat([scores, logits[others].logsumexp(0)[None]])
    return F.kl_div(scores.log_softmax(0), outcomes / outcomes.sum(), reduction="sum")


def _within(position: int, logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    kept = [row for row in TOP_IDS[position].tolist() if row in rows]
    if not kept:
        return logits.new_zeros(())
    teacher = (TEACHER_LOGITS[position].double()[kept] / TEMPERATURE).softmax(0)
    student = (logits[kept] / TEMPERATURE).log_softmax(0)
    return F.kl_div(student, teacher, reduction="sum") * TEMPERATURE**2


REFERENCES = {"samples": _samples, "coarse": _coarse, "within": _within}


def _term(name: str) -> ListTerm:
    terms = {
        "samples": lambda: sampled_kl(COUNTS),
        "coarse": lambda: top_k_kl(listed_logits(), LOG_NORMALIZER),
        "within": lambda: within_list_kl(listed_logits(), temperature=TEMPERATURE),
    }
    return terms[name]()


def _loss(name: str, **common: Any) -> Loss:
    given = {"targets": TARGETS, "term": _term(name), "ids": TOP_IDS} | common
    return partial(listed_loss, **given)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
def test_value_and_gradient_are_the_references(
    name: str, with_seen: bool, chunk_positions: int
) -> None:
    loss = _loss(
        name,
        kd_weight=3.0,
        weights=WEIGHTS,
        seen=SeenRows() if with_seen else None,
        chunk_positions=chunk_positions,
    )
    expected = reference(REFERENCES[name], kd_weight=3.0, with_seen=with_seen)
    assert_equal(with_gradients(loss, torch.float32), with_gradients(expected, torch.float64))


@pytest.mark.parametrize("name", REFERENCES)
def test_huge_scores_neither_overflow_nor_vanish(name: str) -> None:
    expected = reference(REFERENCES[name], kd_weight=3.0, with_seen=False)
    found = with_gradients(_loss(name, kd_weight=3.0, weights=WEIGHTS), torch.float32, scale=1000.0)
    dense = with_gradients(expected, torch.float64, scale=1000.0)
    for one, other in zip(found, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", REFERENCES)
def test_without_weight_the_cross_entropy_remains(name: str) -> None:
    hard = next_item_cross_entropy(STATES, VECTORS, TARGETS)
    torch.testing.assert_close(_loss(name, kd_weight=0.0)(STATES, VECTORS), hard)


def _as_items(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States and item vectors whose product is the logits themselves."""
    return logits.clone().requires_grad_(), F.pad(torch.eye(logits.shape[1]), (0, 0, 1, 0))


def _gradient(loss: torch.Tensor, hard: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Of the divergence alone, at each position."""
    (gradient,) = torch.autograd.grad(loss - hard, states, retain_graph=True)
    return gradient * len(states)


def test_the_gradient_of_many_draws_is_that_of_the_dense_kl() -> None:
    """Of 2,000 labels of 50 draws each; a mean gradient is within 5 standard errors.

    A component of counts / 50 has the variance p (1 − p) / 50, so the standard error of the mean of
    2,000 labels is at most .5 / √100,000 = .0016.
    """
    n_labels, n_draws = 2000, 50
    states, items = _as_items(STATES @ VECTORS[1:].T)
    teacher = TEACHER_LOGITS[:, 1:]
    targets = torch.ones(POSITIONS, dtype=torch.int64)
    dense = distillation_loss(
        states,
        items,
        targets,
        teacher_states=teacher,
        teacher_item_vectors=items,
        kd_weight=1.0,
        temperature=1.0,
    )
    exact = _gradient(dense, next_item_cross_entropy(states, items, targets), states)

    draws = torch.multinomial(
        teacher.softmax(dim=1).repeat_interleave(n_labels, 0),
        n_draws,
        replacement=True,
        generator=torch.Generator().manual_seed(5),
    )
    counts = F.one_hot(draws, ITEMS).sum(dim=1)
    many = states.detach().repeat_interleave(n_labels, 0).requires_grad_()
    hard_targets = targets.repeat_interleave(n_labels)
    sampled = listed_loss(
        many,
        items,
        hard_targets,
        sampled_kl(counts),
        ids=torch.arange(1, ITEMS + 1).expand_as(counts),
        kd_weight=1.0,
    )
    each = _gradient(sampled, next_item_cross_entropy(many, items, hard_targets), many)
    mean = each.view(POSITIONS, n_labels, ITEMS).mean(dim=1)
    torch.testing.assert_close(mean, exact, rtol=0, atol=5 * 0.0016)
    assert each.std() > 0.01, "a single label is noisy"


def test_a_student_that_equals_its_teacher_is_left_alone_where_a_bare_top_k_pulls_it_away() -> None:
    """The classic error: the teacher normalised over its top K, the student over everything."""
    logits = TEACHER_LOGITS[:, 1:]
    states, items = _as_items(logits)
    targets = torch.ones(POSITIONS, dtype=torch.int64)
    hard = next_item_cross_entropy(states, items, targets)
    scores, columns = logits.topk(3, dim=1)
    bare = torch.zeros_like(logits).scatter(1, columns, scores.softmax(dim=1))
    wrong_loss = F.kl_div(states.log_softmax(dim=1), bare, reduction="batchmean")
    wrong = _gradient(wrong_loss, torch.zeros(()), states)
    for term in (
        top_k_kl(scores, logits.logsumexp(dim=1)),
        within_list_kl(scores, temperature=1.0),
    ):
        loss = listed_loss(states, items, targets, term, ids=columns + 1, kd_weight=1.0)
        right = _gradient(loss, hard, states)
        assert right.abs().max() < 1e-6
        torch.testing.assert_close(loss, hard)
    unlisted = torch.ones_like(logits, dtype=torch.bool).scatter(1, columns, False)
    share = logits.softmax(dim=1)[unlisted].view(POSITIONS, -1).sum(dim=1)
    # It takes all probability from what is not listed, and gives it to what is.
    pushed = wrong[unlisted].view(POSITIONS, -1).sum(dim=1)
    torch.testing.assert_close(pushed, share)
    assert share.mean() > 0.05


def test_the_coarse_kl_never_exceeds_the_dense_one_and_meets_it_with_all_items() -> None:
    logits = TEACHER_LOGITS[:, 1:]
    states, items = _as_items(STATES @ VECTORS[1:].T)
    targets = torch.ones(POSITIONS, dtype=torch.int64)
    dense = F.kl_div(states.log_softmax(1), logits.softmax(1), reduction="batchmean")
    hard = next_item_cross_entropy(states, items, targets)
    found: list[float] = []
    for top_k in range(1, ITEMS + 1):
        scores, columns = logits.topk(top_k, dim=1)
        term = top_k_kl(scores, logits.logsumexp(dim=1))
        loss = listed_loss(states, items, targets, term, ids=columns + 1, kd_weight=1.0)
        found.append((loss - hard).item())
    assert found == sorted(found)
    assert found[-1] == pytest.approx(dense.item(), rel=1e-4)


@pytest.mark.usefixtures("production_checks")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ids": TOP_IDS[:6]}, "7 positions need a row of items each"),
        ({"term": sampled_kl(COUNTS[:, :2])}, "with values of shape"),
        ({"term": top_k_kl(torch.zeros(7, 3), LOG_NORMALIZER)}, "with values of shape"),
        ({"term": within_list_kl(torch.zeros(6, 4), temperature=1.0)}, "with values of shape"),
        ({"targets": TARGETS[:1]}, "7 states, 1 targets"),
        ({"kd_weight": float("inf")}, "kd_weight must be finite"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _loss("coarse", **({"kd_weight": 1.0} | changes))(STATES, VECTORS)


def test_an_impossible_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        within_list_kl(listed_logits(), temperature=0.0)
