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
that don't compete have the logit `NO_CANDIDATE` on both sides. The logits stay as they are."""


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

    def of_the_teacher(rows: slice) -> Tensor:
        if candidates is not None:
            return candidates.logits(teacher_states[rows], teacher_item_vectors, rows)
        logits = teacher_states[rows] @ teacher_item_vectors[1:].T
        if seen is not None:
            seen.mask(logits, rows)
        return logits

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        of_teacher = of_the_teacher(rows)
        left_out = _columns_of(distrusted, candidates, rows)
        losses = logits.new_zeros(len(logits))
        gradients: list[tuple[Tensor, Tensor]] = []
        for loss, weight, temperature in terms:
            student, teacher = (
                _softened(x, temperature, candidates, left_out) for x in (logits, of_teacher)
            )
            soft, gradient = loss(student, teacher, rows)
            scale = labelled[rows, None] * (weight * temperature)
            losses += soft * scale[:, 0] * temperature
            gradients.append((gradient, scale))
        losses += cross_entropy_to_gradient(logits, targets[rows] - 1)
        for gradient, scale in gradients:
            logits.addcmul_(gradient, scale)
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


def _softened(
    logits: Tensor,
    temperature: float,
    candidates: SampledCandidates | None,
    left_out: Tensor | None,
) -> Tensor:
    """Logits divided by the temperature, without the columns that are left out."""
    soft = logits
    if temperature != 1:
        soft = logits / temperature
        if candidates is not None:
            soft += candidates.correction * (1 - 1 / temperature)
        soft.masked_fill_(logits == NO_CANDIDATE, NO_CANDIDATE)
    return soft if left_out is None else soft.masked_fill(left_out, NO_CANDIDATE)


def _columns_of(
    distrusted: Tensor | None, candidates: SampledCandidates | None, rows: slice
) -> Tensor | None:
    """Which columns of the logits are of distrusted rows; None: none is."""
    if distrusted is None or candidates is None:
        return None if distrusted is None else distrusted[1:]
    return candidates.columns_of(distrusted, rows)


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
