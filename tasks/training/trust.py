"""Where soft labels count: not on slices on which the teacher is worse than a baseline."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_core.artifacts import Artifact
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.evaluation.slices import popularity_groups
from recsys_core.training.batch import TrustedPositions
from tasks.contracts.teacher import TeacherCheck, Trust
from tasks.training.prepared import Prepared


class Trusted(NamedTuple):
    """Where the teacher is believed.

    Attributes:
        positions: Which labels count, by history length; None: all.
        distrusted_items: `[n_items + 1]`, the items of which the teacher is not believed at any
            position; None: it is believed of all.
    """

    positions: TrustedPositions | None = None
    distrusted_items: NDArray[np.bool_] | None = None


def trusted_labels(
    data: Prepared, teacher_check: Artifact | None, labels: SoftLabels, trust: Trust
) -> Trusted:
    """Where the labels count.

    Args:
        data: Holds the training interactions of the items.
        teacher_check: `check.json` says where the teacher is worse; None: external, all count.
        labels: Those of another teacher all count.
        trust: The setting `distillation.trust`.
    """
    if teacher_check is None:
        return Trusted()
    check = TeacherCheck.load(teacher_check)
    left_out = {part.slice for part in check.left_out(trust, labels.description.teacher)}
    believes_cold, believes_warm = "cold_users" not in left_out, "warm_users" not in left_out
    tail = popularity_groups(data.items["train_count"].to_numpy()).tail

    def trusted(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.where(lengths <= check.cold_user_events, believes_cold, believes_warm)

    return Trusted(
        None if believes_cold and believes_warm else trusted,
        tail if "tail" in left_out else None,
    )
