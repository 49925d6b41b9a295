"""The teacher's settings and the teachers of earlier nights."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from recsys_core.artifacts import MANIFEST, digest, is_finished, sha256_file
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.models.checkpoint import SHAPE, WEIGHTS
from recsys_core.models.ensemble import member_folder
from recsys_core.training.retraining import Parent, RetrainingPolicy
from tasks.contracts.teacher import Lineage
from tasks.training.network import NetworkConfig
from tasks.training.prepared import Prepared

_SEED_STEP = 1000  # between the members' seeds, so that teachers with seeds 1, 2, … share no seed
_DAY = timedelta(days=1)


class TeacherConfig(NetworkConfig):
    """The teacher's network and its training; several networks make an ensemble."""

    source: Literal["trained", "external"] = Field(
        default="trained",
        description="trained: the night trains its teacher; external: the student learns from the "
        "labels in soft_labels.store, and no teacher is trained",
    )
    n_seeds: int = Field(
        default=1, ge=1, le=32, description="Number of networks of this size, with different seeds"
    )
    others: tuple[NetworkConfig, ...] = Field(
        default=(), description="More networks of other sizes"
    )
    transfer_from: Path | None = Field(
        default=None,
        description="Folder of a teacher of other data (model.safetensors, model.json) that full "
        "training starts from. It needs the same sizes and modalities; its ids are not used",
    )
    retraining: RetrainingPolicy = Field(
        default=RetrainingPolicy(),
        description="When training is full, and when it starts from an earlier teacher",
    )

    @property
    def is_external(self) -> bool:
        """Whether the night trains no teacher: all other settings here have no effect then."""
        return self.source == "external"

    def members(self) -> list[NetworkConfig]:
        """The settings of each network of the ensemble."""
        fields = self.model_dump(include=set(NetworkConfig.model_fields))
        seeds = [self.training.seed + _SEED_STEP * i for i in range(self.n_seeds)]
        network = NetworkConfig.model_validate(fields)
        return [*(_with_seed(network, seed) for seed in seeds), *self.others]


def _with_seed(network: NetworkConfig, seed: int) -> NetworkConfig:
    training = network.training.model_copy(update={"seed": seed})
    return network.model_copy(update={"training": training})


class TransferError(ValueError):
    """`transfer_from` holds no teacher that training can start from."""


def transfer_source(config: TeacherConfig) -> list[str] | None:
    """Checksums of the weights that full training starts from, by member; None: random weights.

    Raises:
        TransferError: `transfer_from` lacks the files of a member.
    """
    if config.transfer_from is None:
        return None
    members = range(len(config.members()))
    return [_weights_checksum(member_folder(config.transfer_from, number)) for number in members]


def _weights_checksum(folder: Path) -> str:
    if not (folder / WEIGHTS).is_file() or not (folder / SHAPE).is_file():
        msg = (
            f"teacher.transfer_from: {folder} holds no teacher ({WEIGHTS} and {SHAPE}). Name the "
            "folder of a finished train_teacher stage, or where a registered teacher was "
            "downloaded to, with as many networks as this one."
        )
        raise TransferError(msg)
    return sha256_file(folder / WEIGHTS)


def networks_digest(config: TeacherConfig, data: Prepared) -> str:
    """A hash that is equal if the weights of one night can be used in another."""
    without = {"training", "recency_prior"}
    sizes = [member.model_dump(exclude=without) for member in config.members()]
    return digest([sizes, data.embedding_widths(), data.split.text_encoder])


class EarlierTeacher:
    """A finished teacher of another night.

    Attributes:
        key: Key of its stage output.
        trained_through: All its training events were before this time; None: unknown.
    """

    def __init__(self, key: str, lineage: Lineage) -> None:
        self.key = key
        self._lineage = lineage
        self.trained_through = _time(lineage.trained_through)

    def precedes(self, data: Prepared) -> bool:
        """Whether its events end before tonight's do, and its items are a prefix of tonight's."""
        tonight = data.split.trained_through
        if self.trained_through is None or tonight is None:
            return False
        prefix = data.items["item_id"].head(self._lineage.n_items).to_list()
        return (
            self.trained_through < datetime.fromisoformat(tonight)
            and self._lineage.n_items <= len(data.items)
            and self._lineage.item_index_sha256 == index_prefix_sha256(prefix)
        )

    def has_networks(self, networks: str) -> bool:
        """Whether a warm start can use its weights; see `networks_digest`."""
        return self._lineage.networks == networks

    def as_parent(self, data: Prepared) -> Parent:
        """As a parent, with its ages at the end of tonight's training events."""
        tonight = _time(data.split.trained_through)
        trained, fully_trained = self.trained_through, _time(self._lineage.full_trained_through)
        assert tonight is not None, "no teacher precedes a night without a time"
        assert trained is not None, "a teacher without a time precedes no other"
        assert fully_trained is not None, "full training came first, at a known time"
        return Parent(self.key, (tonight - trained) / _DAY, (tonight - fully_trained) / _DAY)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def earlier_teachers(folder: Path, data: Prepared) -> list[EarlierTeacher]:
    """The teachers that precede tonight's, the newest `trained_through` first."""
    preceding = [teacher for teacher in _finished(folder) if teacher.precedes(data)]
    return sorted(
        preceding, key=lambda teacher: (str(teacher.trained_through), teacher.key), reverse=True
    )


def _finished(folder: Path) -> Iterator[EarlierTeacher]:
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        lineage = Lineage.of_earlier(manifest.parent)
        if lineage is not None and is_finished(manifest.parent):
            yield EarlierTeacher(manifest.parent.name, lineage)
