"""Files of the teacher: the night's plan, its lineage, and the result of its check."""

from typing import Literal

from recsys_core.evaluation.teacher_slices import SliceComparison
from recsys_core.json_file import JsonFile
from recsys_core.training.retraining import TrainingMode

Trust = Literal["by_slice", "everywhere"]
"""Where soft labels count: except on slices with a worse teacher, or everywhere."""


class TeacherPlan(JsonFile):
    """How tonight's teacher is trained.

    Attributes:
        mode: Full training, a warm start, or reuse of the parent without training.
        parent: Key of the teacher that training starts from; None: full training.
        reasons: Why, one sentence each.
        since: End of the parent's training events, in microseconds since 1970; None without parent.
        last: Key of the newest earlier teacher, which tonight's is compared with; None: no other.
        drift: See `popularity_drift`.
        full_events: Training events of a full training, summed over epochs and members.
        warm_events: The same for a warm start.
        transferred_from: See `transfer_source`; None with a parent.
    """

    file_name = "plan.json"

    mode: TrainingMode
    parent: str | None
    reasons: tuple[str, ...]
    since: int | None
    last: str | None
    drift: float
    full_events: int
    warm_events: int
    transferred_from: list[str] | None


class Lineage(JsonFile):
    """What later nights have to know to start from a teacher.

    Attributes:
        mode: How it was trained.
        parent: Key of the teacher that it started from.
        trained_through: All its training events were before this time (ISO 8601); None: unknown.
        full_trained_through: The same for the full training that it descends from.
        transferred_from: Checksums of the weights that the full training started from, by member.
        networks: See `networks_digest`.
        n_items: Length of its item index.
        item_index_sha256: Checksum of its item index.
    """

    file_name = "lineage.json"

    mode: TrainingMode
    parent: str | None
    trained_through: str | None
    full_trained_through: str | None
    transferred_from: list[str] | None
    networks: str
    n_items: int
    item_index_sha256: str


class TeacherCheck(JsonFile):
    """How the teacher compares.

    Attributes:
        teacher: Its key.
        ndcg_at_10: NDCG@10 on validation events of "teacher", "teacher without prior",
            "popularity", "item_knn" and "last teacher", which has no prior either.
        cold_user_events: A user is cold after at most this many events.
        slices: The teacher on slices of these events.
        objections: What speaks against the teacher; empty if it passed.
        lineage: The teacher's.
        version: Its version in the registry.
    """

    file_name = "check.json"

    teacher: str
    ndcg_at_10: dict[str, float]
    cold_user_events: int
    slices: tuple[SliceComparison, ...]
    objections: list[str]
    lineage: Lineage
    version: int

    def left_out(self, trust: Trust, labels_of: str) -> tuple[SliceComparison, ...]:
        """The slices whose soft labels don't count.

        Args:
            trust: The setting `distillation.trust`.
            labels_of: The teacher that the labels are of. Nothing is known of another one's.
        """
        if trust == "everywhere" or labels_of != self.teacher:
            return ()
        return tuple(comparison for comparison in self.slices if comparison.worse)
