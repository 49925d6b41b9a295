"""Train the student on the observed next items and on the teacher's soft labels."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys_core.artifacts import Artifact
from recsys_core.compression.structure import initialise_from_teacher
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.candidates import distillation_candidates
from recsys_core.distillation.factorized_selection import DivergenceName, SoftWeights
from recsys_core.distillation.selection import distilling_loss
from recsys_core.models.ensemble import load_recommender
from recsys_core.settings import Settings
from recsys_core.training.cold_items import find_cold_items
from recsys_core.training.gradients import Loss
from recsys_core.training.negative_sampling import CandidateSet
from tasks.contracts.family import MAIN
from tasks.contracts.network import NetworkSummary
from tasks.contracts.teacher import Trust
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import (
    TRAINING_LIBRARIES,
    build_network,
    finished_network,
    train_and_save,
    training_set_of,
)
from tasks.training.prepared import Prepared
from tasks.training.student import StudentConfig, size_run
from tasks.training.trust import trusted_labels


class DistillationConfig(Settings):
    """How the student learns from its teacher."""

    divergence: DivergenceName = Field(
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
    ranking_weight: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of relaxed ranking distillation: the teacher's 40 top items in its "
        "order, ahead of 40 random ones. It is a sum over these items, so small weights fit, as "
        "0.001. Needs the full softmax and labels of the teacher's states. 0: off",
    )
    closure_weight: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of the cross-entropy to the teacher over the student's own 100 top "
        "items, and over the teacher's that are not among them (RCE-KD). Needs the full softmax "
        "and labels of the teacher's states. 0: off",
    )
    hidden_weight: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of the squared distance between the directions of the teacher's state "
        "and the student's, which a least-squares projection brings to the teacher's width. Needs "
        "labels of the teacher's states. 0: off",
    )
    initialise: Literal["teacher", "random"] = Field(
        default="teacher",
        description="First weights: as much of the teacher as fits, or random. Random too if "
        "teacher.source is external",
    )
    trust: Trust = Field(
        default="by_slice",
        description="by_slice: soft labels don't count for cold or warm users, and say nothing of "
        "tail items, if the teacher ranks validation events of these worse than popularity, or "
        "than item-kNN in the tail; everywhere: all labels count",
    )


@stage(output="student", version=9, libraries=(*TRAINING_LIBRARIES, "scipy"))
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
    trusted = trusted_labels(data, teacher_check, labels, config.trust)
    training_set = training_set_of(
        data,
        student.model.max_length,
        student.training,
        labels=labels,
        trusted=trusted.positions,
    )
    candidates = distillation_candidates(
        training_set.item_counts(len(data.items)), student.training
    )
    loss = loss_of(config, labels, candidates, run.device, trusted.distrusted_items)
    members = student.members()
    summaries: dict[str, NetworkSummary] = {}
    for number, (name, network) in enumerate(members.items()):
        member = size_run(run, name, number, len(members))
        if (summary := finished_network(member.out)) is not None:
            summaries[name] = summary
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
            candidates=candidates,
            loss=loss,
            cold_items=find_cold_items(training_set, len(data.items)),
        )
    main = summaries.pop(MAIN).model_dump()
    sizes = {name: summary.validation_ndcg_at_10 for name, summary in summaries.items()}
    return main | ({"sizes": sizes} if sizes else {})


def loss_of(
    config: DistillationConfig,
    labels: SoftLabels,
    candidates: CandidateSet,
    device: str,
    distrusted: NDArray[np.bool_] | None = None,
) -> Loss:
    """The loss that the settings name; see `distilling_loss`."""
    return distilling_loss(
        labels,
        candidates,
        SoftWeights(
            divergence=config.kd_weight,
            ranking=config.ranking_weight,
            closure=config.closure_weight,
            hidden=config.hidden_weight,
        ),
        divergence=config.divergence,
        temperature=config.temperature,
        device=device,
        distrusted=distrusted,
    )
