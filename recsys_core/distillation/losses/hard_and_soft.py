"""Hard cross-entropy plus weighted losses on the logits of student and teacher."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets
from recsys_core.training.losses.full_softmax import cross_entropy_to_gradient
from recsys_core.training.losses.sampled_candidates import SampledCandidates, candidate_loss
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen

SoftLoss = Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]
"""Given the student's and the teacher's logits, `[chunk, items]`, and which positions they are,
return the loss of each position and, as a new tensor, its gradient by the student's logits. Items
that don't compete have the logit `NO_CANDIDATE` on both sides."""


class SoftTerm(NamedTuple):
    """A loss against the teacher's logits, and how much it counts.

    Attributes:
        loss: The loss on both sides' logits, divided by the temperature.
        weight: Its weight; 0 leaves the cross-entropy.
        temperature: Positive and finite. The loss is multiplied by temperature², which keeps the
            size of gradients.
    """

    loss: SoftLoss
    weight: float
    temperature: float = 1.0


def hard_and_soft_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    terms: Sequence[SoftTerm],
    *,
    teacher_states: Float[Tensor, "positions teacher_dim"],
    teacher_item_vectors: Float[Tensor, "items_and_padding teacher_dim"],
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    distrusted: Bool[Tensor, " items_and_padding"] | None = None,
    candidates: SampledCandidates | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + Σ weight × temperature² × a loss against the teacher's logits.

    The teacher's logits are computed chunk by chunk from stored states, for the same columns as the
    student's. Where candidates are drawn, both sides' logits are corrected by the same log expected
    counts; the temperature divides the logits and not the correction.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1; with `candidates`, its column, from 1.
        terms: The losses against the teacher.
        teacher_states: The teacher's states at the same positions. A row of NaN marks a position
            without a label; only its hard target counts.
        teacher_item_vectors: The teacher's vectors of the same rows.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position, neither for the teacher nor for the
            student; None: all compete.
        distrusted: The rows of which the teacher is not believed: they compete in the cross-entropy
            and on neither side of `terms`. None: it is believed of all.
        candidates: The columns, where the catalogue is too large; None: all rows.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions.

    Raises:
        ValueError: The shapes do not fit each other, or a temperature is impossible.
    """
    check_targets(targets, states)
    for term in terms:
        check_temperature(term.temperature)
    _check_teacher(teacher_states, teacher_item_vectors, states, item_vectors)
    labelled = ~teacher_states.isnan().any(dim=1)
    teacher_states = teacher_states.nan_to_num(0.0)

    def softened(logits: Tensor, is_masked: Tensor | None, temperature: float) -> Tensor:
        logits = logits / temperature
        if candidates is not None and temperature != 1:
            logits += candidates.correction * (1 - 1 / temperature)
        return logits if is_masked is None else logits.masked_fill_(is_masked, NO_CANDIDATE)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        if candidates is None:
            of_teacher = teacher_states[rows] @ teacher_item_vectors[1:].T
        else:
            of_teacher = candidates.logits(teacher_states[rows], teacher_item_vectors, rows)
        is_masked = _masked(logits, rows, seen, distrusted, candidates)
        losses = logits.new_zeros(len(logits))
        gradients: list[Tensor] = []
        for loss, weight, temperature in terms:
            student = softened(logits, is_masked, temperature)
            soft, gradient = loss(student, softened(of_teacher, is_masked, temperature), rows)
            scale = labelled[rows, None] * (weight * temperature)
            losses += soft * scale[:, 0] * temperature
            gradients.append(gradient.mul_(scale))
        losses += cross_entropy_to_gradient(logits, targets[rows] - 1)
        for gradient in gradients:
            logits += gradient
        return losses

    return candidate_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=candidates,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )


def _masked(
    logits: Tensor,
    rows: slice,
    seen: Seen | None,
    distrusted: Tensor | None,
    candidates: SampledCandidates | None,
) -> Tensor | None:
    """The columns that count on neither side; None: all count."""
    no_candidates = None
    if seen is not None or candidates is not None:
        no_candidates = logits == NO_CANDIDATE
    if distrusted is None:
        return no_candidates
    others = distrusted[1:] if candidates is None else candidates.columns_of(distrusted, rows)
    return others if no_candidates is None else no_candidates | others


def check_temperature(temperature: float) -> None:
    """Refuse a temperature by which logits cannot be divided.

    Raises:
        ValueError: It is not positive and finite.
    """
    if not 0 < temperature < float("inf"):
        msg = f"temperature must be positive and finite, found {temperature}."
        raise ValueError(msg)


def _check_teacher(
    teacher_states: Tensor, teacher_item_vectors: Tensor, states: Tensor, item_vectors: Tensor
) -> None:
    n_known, n_rows = len(teacher_item_vectors), len(item_vectors)
    if len(teacher_states) != len(states) or n_known != n_rows:
        msg = (
            f"Teacher labels for {len(teacher_states)} positions over {n_known} items do not fit "
            f"{len(states)} positions over {n_rows} items."
        )
        raise ValueError(msg)
    if n_known < 3:  # with the padding
        msg = f"Distillation needs two or more items, found {n_known - 1}."
        raise ValueError(msg)
