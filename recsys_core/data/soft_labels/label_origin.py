"""`label_origin.json`: where the labels of a night come from that were made elsewhere."""

from typing import Self

from recsys_core.artifacts import Artifact
from recsys_core.json_file import JsonFile


class LabelOrigin(JsonFile):
    """Where tonight's labels come from, and how much of tonight's data they cover.

    Attributes:
        teacher: Name of the teacher, by the import.
        trained_through: The teacher's training events were before this, ISO 8601; None: unknown.
        store_sha256: Checksum of the store's `soft_labels.json`, which holds those of its label
            files.
        labels: Labels taken over.
        stale: Labels left out: their user is gone, or the events up to their position are others.
        users: Users with a label.
        n_users: Users with a position that has a next training event.
        positions: Such positions with a label.
        n_positions: All such positions.
    """

    file_name = "label_origin.json"

    teacher: str
    trained_through: str | None
    store_sha256: str
    labels: int
    stale: int
    users: int
    n_users: int
    positions: int
    n_positions: int

    @classmethod
    def of(cls, soft_labels: Artifact) -> Self | None:
        """The origin of a night's labels; None if the night's own teacher wrote them."""
        has_one = (soft_labels.folder / cls.file_name).exists()
        return cls.load(soft_labels) if has_one else None

    @property
    def share(self) -> float:
        """Share of the positions that have a label."""
        return self.positions / max(1, self.n_positions)
