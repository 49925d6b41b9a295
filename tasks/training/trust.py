"""Which soft labels count: not those of slices on which the teacher is worse than a baseline."""

import numpy as np
from numpy.typing import NDArray

from recsys_core.artifacts import Artifact
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.evaluation.teacher_slices import PositionSlices
from recsys_core.training.batching import Trusted
from tasks.contracts.teacher import TeacherCheck, Trust
from tasks.training.prepared import Prepared


def trusted_labels(
    data: Prepared, teacher_check: Artifact | None, labels: SoftLabels, trust: Trust
) -> Trusted | None:
    """Which labels count, by history length and target; None: all.

    Args:
        data: Holds the training interactions of the items.
        teacher_check: `check.json` says where the teacher is worse; None: external, all count.
        labels: Those of another teacher all count.
        trust: The setting `distillation.trust`.
    """
    if teacher_check is None:
        return None
    check = TeacherCheck.load(teacher_check)
    left_out = {part.slice for part in check.left_out(trust, labels.description.teacher)}
    if not left_out:
        return None
    slices = PositionSlices(
        data.items["train_count"].to_numpy(), cold_user_events=check.cold_user_events
    )

    def trusted(lengths: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
        masks = slices.of(lengths, targets).items()
        return ~np.logical_or.reduce([mask for name, mask in masks if name in left_out])

    return trusted
