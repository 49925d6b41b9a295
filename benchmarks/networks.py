"""Networks that are trained outside of a night, for the benchmarks of content."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.config import NightlyConfig
from recsys_core.artifacts import Artifact
from recsys_core.models.checkpoint import load_model, save_model
from recsys_core.models.recommender import Recommender
from recsys_core.training.cold_items import find_cold_items, fit_cold_items
from recsys_core.training.loop import fit
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
from tasks.engine.stage import StageRun
from tasks.stages.distill import distill
from tasks.stages.write_soft_labels import write_soft_labels
from tasks.training.network import NetworkConfig, build_network, training_set_of
from tasks.training.prepared import Prepared


def varied(network: NetworkConfig, epochs: int, changes: Mapping[str, Any]) -> NetworkConfig:
    """One network of the teacher with other content settings."""
    fields = network.model_dump(include={"model", "training", "content_features"})
    fields["training"] |= {"epochs": epochs, "validate_every": epochs}
    fields["model"] |= {"id_dropout": changes.get("id_dropout", 0.0)}
    fields["content_features"] = changes.get("content_features", fields["content_features"])
    return NetworkConfig.model_validate(fields)


def trained(
    data: Prepared,
    network: NetworkConfig,
    folder: Path,
    *,
    validate_on: Prepared | None = None,
    source: Recommender | None = None,
) -> Recommender:
    """A network trained on the prepared data; its cold items are not fitted yet.

    Args:
        data: Prepared data to train on.
        network: Settings of the network.
        folder: Folder of the checkpoint.
        validate_on: Prepared data whose validation events stop the training; None: `data`.
        source: Model of another catalogue to start from; None: initial weights.
    """
    model = build_network(data, network)
    if source is not None:
        model.initialise_from_other_catalogue(source)
    training_set = training_set_of(data, model.max_length, network.training)
    candidates = candidate_set_of(training_set.item_counts(len(data.items)), network.training)
    fit(
        model,
        training_set,
        network.training,
        candidates=candidates,
        loss=next_item_loss(network.training, candidates),
        validate=(validate_on or data).validator(network.training.validation_cases),
        checkpoint=folder,
        clock=time.monotonic,
    )
    return model


def with_cold_items(model: Recommender, data: Prepared, network: NetworkConfig) -> Recommender:
    """The trained network after the cold items are fitted, as a night does."""
    training_set = training_set_of(data, model.max_length, network.training)
    candidates = candidate_set_of(training_set.item_counts(len(data.items)), network.training)
    fit_cold_items(
        model,
        find_cold_items(training_set, len(data.items)),
        training_set,
        network.training,
        candidates=candidates,
        loss=next_item_loss(network.training, candidates),
    )
    return model


def distilled(
    prepared: Artifact, model: Recommender, config: NightlyConfig, folder: Path, epochs: int
) -> Recommender:
    """The student of a teacher, as a night makes it, of so many epochs.

    Args:
        prepared: Prepared data to train on.
        model: The teacher.
        config: Settings of soft labels, distillation and student.
        folder: Where teacher, soft labels and student are written. What is there is deleted:
            stages would take what an earlier run left for their own unfinished work.
        epochs: Of the student.
    """
    shutil.rmtree(folder, ignore_errors=True)
    teacher, labels, student = (
        Artifact(name, name, folder / name) for name in ("teacher", "labels", "student")
    )
    for artifact in (teacher, labels, student):
        artifact.folder.mkdir(parents=True, exist_ok=True)
    save_model(teacher.folder, model)
    training = config.student.training.model_copy(
        update={"epochs": epochs, "validate_every": epochs}
    )
    write_soft_labels.body(
        StageRun.bare(folder, labels.folder),
        config.soft_labels,
        max_length=config.student.model.max_length,
        loss=training.loss,
        label_store=None,
        prepared=prepared,
        teacher=teacher,
    )
    distill.body(
        StageRun.bare(folder, student.folder),
        config.distillation,
        student=config.student.model_copy(update={"training": training}),
        prepared=prepared,
        teacher=teacher,
        teacher_check=None,
        soft_labels=labels,
    )
    return load_model(student.folder)
