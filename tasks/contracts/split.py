"""What prepare says of the histories: how they are split, and what they were made of."""

from typing import ClassVar, Literal

from recsys_core.data.histories.splits import SplitKind
from recsys_core.data.histories.targets import TargetConfig
from recsys_core.json_file import JsonFile


class Split(JsonFile):
    """The split of the prepared data.

    Attributes:
        kind: Kind of the split.
        trained_through: All training events were before this time, ISO 8601; None if the split
            is by order.
        validation_start: Begin of the validation window, ISO 8601; None if the split is by order.
        test_start: Begin of the test window, ISO 8601; None if the split is by order.
        n_items: Number of items in the item index.
        item_index_sha256: Checksum of the item ids in the order of the index.
        n_buckets: Number of files that the users are spread over.
        lake_version: Version of the lake's interactions that was read.
        lake_rows: Number of interactions in that version.
        event_types: Kinds of events, by code.
        targets: Which events are targets.
        exclude_seen: Whether items in a history are left out of its candidates.
        text_encoder: Fingerprint of the sentence encoder; None without one.
        n_users: Number of histories.
        train_events: Number of events in the training ranges of the histories.
        validation_events: Number of events in their validation ranges.
        test_events: Number of events in their test ranges.
    """

    file_name: ClassVar[str] = "split.json"

    kind: SplitKind
    trained_through: str | None
    validation_start: str | None
    test_start: str | None
    n_items: int
    item_index_sha256: str
    n_buckets: int
    lake_version: int
    lake_rows: int
    event_types: tuple[str, ...]
    targets: TargetConfig
    exclude_seen: bool
    text_encoder: str | None
    n_users: int
    train_events: int
    validation_events: int
    test_events: int

    def window_start(self, window: Literal["validation", "test"]) -> str | None:
        """Begin of a window, ISO 8601; None if the split is by order."""
        return self.validation_start if window == "validation" else self.test_start
