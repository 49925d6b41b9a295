"""Write the teacher's soft label of every training position to Parquet, bucket by bucket.

The labels may also come from a store of another teacher, see `soft_labels.store`.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import Field

from recsys_core.artifacts import Artifact
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.soft_labels.description import (
    SoftLabelDescription,
    SoftLabelError,
    store_sha256,
)
from recsys_core.data.soft_labels.factorized import describe
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.data.soft_labels.taking_over import take_over
from recsys_core.distillation.labelling import TopItems, label_bucket
from recsys_core.models.ensemble import load_recommender
from recsys_core.settings import Settings
from recsys_core.training.negative_sampling import LossName, comparable_loss, draws_negatives
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.prepared import Prepared


class SoftLabelConfig(Settings):
    """Which positions get a soft label, and of which teacher."""

    store: Path | None = Field(
        default=None,
        description="Store of `recdistill soft-labels import` that the student learns from; empty: "
        "tonight's teacher",
    )
    warn_below_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="The night warns if the labels of a store cover a smaller share of the "
        "training positions",
    )
    newest: int | None = Field(
        default=None,
        ge=1,
        description="Label only as many windows of each user as hold this many newest positions; "
        "empty: all",
    )
    top_items: int = Field(
        default=32,
        ge=0,
        le=1000,
        description="Where the student's training draws its candidates: how many of the teacher's "
        "top items are stored with each label, and so are among the candidates of its position. "
        "4 bytes each, before compression; finding them costs a product with all item vectors",
    )
    batch_size: int = Field(
        default=128, ge=1, le=65536, description="Windows that the teacher reads at once"
    )


@stage(output="soft_labels", version=6, libraries=("numpy", "polars", "pyarrow", "torch"))
def write_soft_labels(
    run: StageRun,
    config: SoftLabelConfig,
    *,
    max_length: int,
    loss: LossName,
    label_store: str | None,
    prepared: Artifact,
    teacher: Artifact | None,
) -> Summary:
    """Write `labels/bucket-*.parquet`, `item_vectors.parquet` and `soft_labels.json`.

    A rerun after a kill continues at the first bucket without a file. With `config.store`, there
    are no item vectors, and `label_origin.json` says which store it was.

    Args:
        run: Folders, device and progress.
        config: Which positions are labelled.
        max_length: Longest window of the student, in events.
        loss: The loss of its training, which says whether it draws candidates.
        label_store: Checksum of the `soft_labels.json` in `config.store` when the night began.
        prepared: Tonight's data.
        teacher: Reads the same windows as the student; None: external, the labels are the store's.

    Raises:
        SoftLabelError: `config.store` has changed since, or does not fit tonight's data.
    """
    data = Prepared(prepared)
    if config.store is not None:
        if store_sha256(config.store) != label_store:
            msg = (
                f"soft_labels.store: {config.store} has changed since this night began. Run the "
                "night again: it will use the labels that are there now."
            )
            raise SoftLabelError(msg)
        taken = _labels_of_store(config.store, run.out, data)
        _warn(
            run, config, LabelOrigin.load(run.out), has_dates=data.split.trained_through is not None
        )
        return taken.model_dump(include={"layout", "teacher", "rows", "top_k", "bytes"})
    assert teacher is not None, "the configuration asks for a store with an external teacher"
    model = load_recommender(teacher.folder).to(run.device)
    top = _top_items(config, loss, data)
    for i, bucket in enumerate(data.buckets):
        path = run.out / "labels" / bucket.name
        if not path.exists():
            label_bucket(
                model,
                bucket,
                path,
                max_length=max_length,
                newest=config.newest,
                batch_size=config.batch_size,
                top=top,
            )
        run.progress((i + 1) / len(data.buckets), f"bucket {i + 1} of {len(data.buckets)}")
    description = describe(
        run.out,
        teacher=teacher.key,
        item_index_sha256=data.split.item_index_sha256,
        trained_through=data.split.trained_through,
        item_vectors=model.item_vectors().detach().cpu().numpy(),
        top_k=top and top.k,
    )
    return description.model_dump(include={"layout", "rows", "dim", "top_k", "bytes"})


def _top_items(config: SoftLabelConfig, loss: LossName, data: Prepared) -> TopItems | None:
    """The items beside each state; None where the student compares all items anyway."""
    occurs = data.items["train_count"].to_numpy() > 0
    if not config.top_items or not draws_negatives(comparable_loss(loss), int(occurs.sum())):
        return None
    return TopItems(config.top_items, np.append(False, occurs), data.exclude_seen)


def _labels_of_store(folder: Path, out: Path, data: Prepared) -> SoftLabelDescription:
    """Take over the labels of a store whose teacher has not seen what the student is tested on."""
    described = SoftLabelDescription.load(folder)
    through, end = described.trained_through, data.split.trained_through
    if through and end and datetime.fromisoformat(through) > datetime.fromisoformat(end):
        msg = (
            f"soft_labels.store: the teacher of {folder} was trained through {through}, beyond "
            f"tonight's training events, which end before {end}. Import labels of an earlier one."
        )
        raise SoftLabelError(msg)
    prefix = index_prefix_sha256(data.items["item_id"].head(described.n_items))
    return take_over(
        SoftLabels(folder, item_index_sha256=prefix),
        out,
        item_index_sha256=data.split.item_index_sha256,
        n_items=len(data.items),
        buckets=data.buckets,
    )


def _warn(run: StageRun, config: SoftLabelConfig, origin: LabelOrigin, *, has_dates: bool) -> None:
    """Say what makes the labels of a store less useful, or the figures less honest."""
    if not has_dates:
        run.logger.warning(
            "soft_labels.store: a split by order has no dates, so it can't be checked whether the "
            "teacher of %s has seen the test events. If it has, tonight's figures are too good.",
            config.store,
        )
    elif origin.trained_through is None:
        run.logger.warning(
            "soft_labels.store: %s does not say what its teacher was trained through. If the "
            "teacher has seen the test events, tonight's figures are too good. Import the "
            "labels again with --trained-through.",
            config.store,
        )
    if origin.share < config.warn_below_share:
        run.logger.warning(
            "soft_labels.store: %s labels %s of %s training positions, %.1f %%, of %s of %s users. "
            "The others teach by their next event alone, so the student may be little better than "
            "its control. Label more positions of each user.",
            config.store,
            f"{origin.positions:,}",
            f"{origin.n_positions:,}",
            100 * origin.share,
            f"{origin.users:,}",
            f"{origin.n_users:,}",
        )
