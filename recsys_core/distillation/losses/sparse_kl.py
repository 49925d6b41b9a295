"""Distillation losses for sparse labels with probabilities: draws, or the scores of a list.

A teacher's top K items hold a part of its probability. Divided by that part, they are not its
distribution, and a student that is normalised over all items would be pulled away from a perfect
copy of the teacher: it would learn that everything else is impossible. So each loss here compares
the same outcomes on both sides.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.distillation.losses.listed import (
    check_labels,
    find_listed,
    softmax_,
    softmax_of_rest_,
)
from recsys_core.training.losses.own_and_drawn import OwnAndDrawn, catalogue_loss
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen


def sampled_kl_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    sample_ids: Int[Tensor, "positions samples"],
    sample_counts: Int[Tensor, "positions samples"],
    kd_weight: float,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    candidates: OwnAndDrawn | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × KL(draws ‖ student), over all items that compete.

    The teacher's distribution p is estimated by counts / N of N draws from it. The student q is
    normalised over all items, so the gradient q − counts / N has the expectation q − p: that of the
    KL to the whole distribution. Draws of items that don't compete are left out, and N is the
    number of the others: these are draws from p without those items. The value is larger than the
    KL to p by an amount that does not depend on the student.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        sample_ids: Rows of the distinct items drawn, from 1; 0: none. A position without any has no
            label; only its hard target counts.
        sample_counts: How often each was drawn.
        kd_weight: Weight of the KL; 0 leaves the cross-entropy.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        candidates: The columns, where the catalogue is too large; None: all rows. With them targets
            and listed items are columns from 1.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or the weight is impossible.

    Example:
        Even draws from a student that scores two items evenly: the cross-entropy ln 2 is left.

        >>> import torch
        >>> loss = sampled_kl_loss(
        ...     torch.zeros(1, 4),
        ...     torch.ones(3, 4),
        ...     torch.tensor([1]),
        ...     sample_ids=torch.tensor([[1, 2]]),
        ...     sample_counts=torch.tensor([[5, 5]]),
        ...     kd_weight=1.0,
        ... )
        >>> round(loss.item(), 4)
        0.6931

    Source: Anshumann et al. 2025, "Sparse Logit Sampling", arXiv:2503.16870, section 4.
    """
    check_labels(sample_ids, sample_counts, targets, states, kd_weight=kd_weight)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        target = targets[rows, None] - 1
        drawn = find_listed(logits, sample_ids[rows])
        counts = torch.where(drawn.competes, sample_counts[rows], 0).float()
        n_drawn = counts.sum(dim=1, keepdim=True)
        teacher = counts / n_drawn.clamp(min=1)
        weight = kd_weight * (n_drawn > 0)
        target_logits = logits.gather(1, target)[:, 0]
        normalizers = softmax_(logits)
        log_student = drawn.logits - normalizers[:, None]
        divergence = torch.xlogy(teacher, teacher) - teacher * log_student
        logits.mul_(1 + weight)
        logits.scatter_add_(1, drawn.columns, -weight * teacher)
        logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
        return normalizers - target_logits + weight[:, 0] * divergence.sum(dim=1)

    return catalogue_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=candidates,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )


def top_k_kl_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    top_ids: Int[Tensor, "positions k"],
    top_logits: Float[Tensor, "positions k"],
    log_normalizer: Float[Tensor, " positions"],
    kd_weight: float,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    candidates: OwnAndDrawn | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × KL(teacher ‖ student) over K + 1 outcomes.

    The outcomes are: each item of the list, and any other item. The teacher's probability of an
    item is exp(logit − log_normalizer), of any other item 1 minus their sum; the student's are its
    probabilities under the softmax over all items that compete. This KL is exact for these
    outcomes. It is at most the KL over all items, and says nothing about the order of the items
    that are not listed. The temperature is 1, since the normaliser is known for no other.

    An item of the list that does not compete is left out, and the teacher's other probabilities are
    divided by the rest. The teacher's probability of items that are not listed counts as that of
    items that compete: log_normalizer should leave out the items that the user has had, where these
    are not recommended.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        top_ids: Rows of the listed items, from 1; 0: none. A position without any has no label;
            only its hard target counts.
        top_logits: The teacher's raw score of each, in nats.
        log_normalizer: Log of the sum over all items of exp(score).
        kd_weight: Weight of the KL; 0 leaves the cross-entropy.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        candidates: The columns, where the catalogue is too large; None: all rows. With them targets
            and listed items are columns from 1.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or the weight is impossible.

    Example:
        A student of four even items, whose teacher gives item 1 a quarter: no divergence.

        >>> import torch
        >>> loss = top_k_kl_loss(
        ...     torch.zeros(1, 4),
        ...     torch.ones(5, 4),
        ...     torch.tensor([1]),
        ...     top_ids=torch.tensor([[1]]),
        ...     top_logits=torch.tensor([[2.0]]),
        ...     log_normalizer=torch.tensor([2.0]) + torch.tensor(4.0).log(),
        ...     kd_weight=1.0,
        ... )
        >>> round(loss.item(), 4) == round(torch.tensor(4.0).log().item(), 4)
        True

    Source: Anshumann et al. 2025, arXiv:2503.16870, section 3, on why the remainder is needed.
    """
    check_labels(top_ids, top_logits, targets, states, kd_weight=kd_weight)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        target = targets[rows, None] - 1
        top = find_listed(logits, top_ids[rows])
        target_logits = logits.gather(1, target)[:, 0]
        log_rest = softmax_of_rest_(logits, top)
        normalizers = torch.logaddexp(top.logits.logsumexp(dim=1), log_rest)
        log_student = top.logits - normalizers[:, None]
        log_student_rest = log_rest - normalizers
        scores = top_logits[rows].float() - log_normalizer[rows, None].float()
        of_all = torch.where(top_ids[rows] > 0, scores.exp(), 0)
        has_rest = log_rest > NO_CANDIDATE / 2
        rest = (1 - of_all.sum(dim=1)).clamp(min=0) * has_rest
        teacher = torch.where(top.competes, of_all, 0)
        mass = teacher.sum(dim=1) + rest
        weight = kd_weight * (top.any & (mass > 0))
        mass = mass.clamp(min=torch.finfo(mass.dtype).tiny)
        teacher, rest = teacher / mass[:, None], rest / mass
        of_top = torch.xlogy(teacher, teacher) - teacher * log_student
        of_rest = torch.xlogy(rest, rest) - rest * torch.where(has_rest, log_student_rest, 0)
        scale = log_student_rest.exp() * (1 + weight) - weight * rest
        gradient = log_student.exp() * (1 + weight[:, None]) - weight[:, None] * teacher
        logits.mul_(scale[:, None])
        logits.scatter_add_(1, top.columns, gradient * top.competes)
        logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
        return normalizers - target_logits + weight * (of_top.sum(dim=1) + of_rest)

    return catalogue_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=candidates,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )


def within_list_kl_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    top_ids: Int[Tensor, "positions k"],
    top_logits: Float[Tensor, "positions k"],
    kd_weight: float,
    temperature: float,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    candidates: OwnAndDrawn | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × temperature² × KL(teacher ‖ student) within the list.

    It is for scores without a normaliser: how much probability the listed items have together is
    unknown. So both sides are normalised over the listed items that compete, and the KL says how
    these divide what they have together. The other items are left to the hard cross-entropy.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        top_ids: See `top_k_kl_loss`.
        top_logits: The teacher's raw score of each, in nats.
        kd_weight: Weight of the KL; 0 leaves the cross-entropy.
        temperature: Positive and finite; divides the logits on both sides.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        candidates: The columns, where the catalogue is too large; None: all rows. With them targets
            and listed items are columns from 1.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or weight or temperature is impossible.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2, for the conditional distribution.
    """
    check_labels(top_ids, top_logits, targets, states, kd_weight=kd_weight)
    if not 0 < temperature < float("inf"):
        msg = f"temperature must be positive and finite, found {temperature}."
        raise ValueError(msg)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        target = targets[rows, None] - 1
        top = find_listed(logits, top_ids[rows])
        scores = torch.where(top.competes, top_logits[rows].float(), NO_CANDIDATE)
        teacher = (scores / temperature).log_softmax(dim=1)
        student = (top.logits / temperature).log_softmax(dim=1)
        probabilities = torch.where(top.competes, teacher.exp(), 0)
        weight = kd_weight * temperature * top.any[:, None]
        divergence = torch.where(top.competes, probabilities * (teacher - student), 0)
        gradient = torch.where(top.competes, student.exp() - probabilities, 0)
        target_logits = logits.gather(1, target)[:, 0]
        normalizers = softmax_(logits)
        logits.scatter_add_(1, top.columns, weight * gradient)
        logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
        losses = weight[:, 0] * temperature * divergence.sum(dim=1)
        return normalizers - target_logits + losses

    return catalogue_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=candidates,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )
