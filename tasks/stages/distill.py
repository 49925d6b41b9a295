"""Train the student on the observed next items and on the teacher's soft labels."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recsys_core.artifacts import Artifact
from recsys_core.compression.structure import initialise_from_teacher
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.losses.divergences import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
)
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.distillation.sparse_selection import sparse_distillation
from recsys_core.models.ensemble import load_recommender
from recsys_core.settings import Settings
from recsys_core.training.cold_items import find_cold_items
from recsys_core.training.gradients import Loss
from recsys_core.training.losses.selection import seen_items
from recsys_core.training.negative_sampling import FullCatalogue, RestrictedBatch
from tasks.contracts.network import NetworkSummary
from tasks.contracts.teacher import Trust
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import (
    TRAINING_LIBRARIES,
    build_network,
    train_and_save,
    training_set_of,
)
from tasks.training.prepared import Prepared
from tasks.training.student import MAIN, StudentConfig, size_run
from tasks.training.trust import trusted_labels

_DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


class DistillationConfig(Settings):
    """How the student learns from its teacher."""

    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = Field(
        default="forward_kl",
        description="KL(teacher ‖ student), KL(student ‖ teacher), or the mean of both sides' KL "
        "to their equal mixture; in nats",
    )
    kd_weight: float = Field(
        default=4.0,
        ge=0,
        le=1000,
        description="Weight of the divergence beside the hard cross-entropy",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Softens both distributions; 1 leaves them as they are",
    )
    initialise: Literal["teacher", "random"] = Field(
        default="teacher",
        description="First weights: as much of the teacher as fits, or random. Random too if "
        "teacher.source is external",
    )
    trust: Trust = Field(
        default="by_slice",
        description="by_slice: soft labels don't count for cold users, warm users or tail items if "
        "the teacher ranks validation events of these worse than popularity, or than item-kNN in "
        "the tail; everywhere: all labels count",
    )


@stage(output="student", version=6, libraries=(*TRAINING_LIBRARIES, "scipy"))
def distill(
    run: StageRun,
    config: DistillationConfig,
    *,
    student: StudentConfig,
    prepared: Artifact,
    teacher: Artifact | None,
    teacher_check: Artifact | None,
    soft_labels: Artifact,
) -> Summary:
    """Write `model.safetensors`, `model.json`, `curve.json` and `summary.json` of each student.

    The main student is in the output's folder, the others of a family are in `sizes/NAME`. A rerun
    after a kill continues with the student that was being trained.

    Args:
        run: Folders, device and progress.
        config: The loss and the first weights.
        student: The networks and their training.
        prepared: Tonight's data.
        teacher: Gives the first weights; None: external, so they are random.
        teacher_check: Says where the teacher's labels don't count; None: external, all count.
        soft_labels: What the students learn from beside the events.
    """
    data = Prepared(prepared)
    labels = SoftLabels(soft_labels.folder, item_index_sha256=data.split.item_index_sha256)
    training_set = training_set_of(
        data,
        student.model.max_length,
        student.training,
        labels=labels,
        trusted=trusted_labels(data, teacher_check, labels, config.trust),
    )
    loss = distilling_loss(labels, config, run.device)
    members = student.members()
    summaries: dict[str, NetworkSummary] = {}
    for number, (name, network) in enumerate(members.items()):
        member = size_run(run, name, number, len(members))
        if (member.out / NetworkSummary.file_name).exists():
            summaries[name] = NetworkSummary.load(member.out)
            continue
        model = build_network(data, network)
        if config.initialise == "teacher" and teacher is not None:
            initialise_from_teacher(model, load_recommender(teacher.folder))
        summaries[name] = train_and_save(
            member,
            model,
            data,
            network,
            training_set,
            candidates=FullCatalogue(training_set.item_counts(len(data.items))),
            loss=loss,
            cold_items=find_cold_items(training_set, len(data.items)),
        )
    main = summaries.pop(MAIN).model_dump()
    sizes = {name: summary.validation_ndcg_at_10 for name, summary in summaries.items()}
    return main | ({"sizes": sizes} if sizes else {})


def distilling_loss(labels: SoftLabels, config: DistillationConfig, device: str) -> Loss:
    """Cross-entropy on the observed items plus the loss that fits the layout of the labels.

    Raises:
        ValueError: Sparse labels do not tell the teacher at this temperature or divergence.
    """
    description = labels.description
    if description.layout == "sparse":
        if config.divergence != "forward_kl":
            msg = (
                f"distillation.divergence is {config.divergence}, but the soft labels in "
                f"{labels.folder} are lists of items, whose losses are forward KL or a rank loss. "
                "Leave divergence out."
            )
            raise ValueError(msg)
        return sparse_distillation(
            description.columns, kd_weight=config.kd_weight, temperature=config.temperature
        )
    teacher_item_vectors = torch.from_numpy(labels.item_vectors()).to(device)

    def loss(
        states: Float[Tensor, "positions dim"],
        item_vectors: Float[Tensor, "rows dim"],
        restricted: RestrictedBatch,
    ) -> Float[Tensor, ""]:
        batch, items = restricted.batch, restricted.items
        assert batch.teacher_states is not None  # the training set has labels
        teacher_rows = (
            teacher_item_vectors if items is None else teacher_item_vectors[items.to(device)]
        )
        return distillation_loss(
            states,
            item_vectors,
            batch.targets[batch.targets > 0].to(device),
            teacher_states=batch.teacher_states.to(device),
            teacher_item_vectors=teacher_rows,
            kd_weight=config.kd_weight,
            temperature=config.temperature,
            divergence=_DIVERGENCES[config.divergence],
            weights=None if batch.weights is None else batch.weights.to(device),
            seen=seen_items(restricted, len(item_vectors), states.device),
        )

    return loss
