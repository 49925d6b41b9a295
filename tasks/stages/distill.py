"""Train the student on the observed next items and on the teacher's soft labels."""

from typing import Literal

from pydantic import Field

from recsys_core.artifacts import Artifact
from recsys_core.compression.structure import initialise_from_teacher
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.columns import distillation_candidates
from recsys_core.distillation.factorized_selection import DivergenceName, SoftWeights
from recsys_core.distillation.selection import distilling_loss
from recsys_core.models.ensemble import load_recommender
from recsys_core.settings import Settings
from recsys_core.training.cold_items import find_cold_items
from recsys_core.training.gradients import Loss
from recsys_core.training.negative_sampling import CandidateSet
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import (
    TRAINING_LIBRARIES,
    NetworkConfig,
    build_network,
    train_and_save,
    training_set_of,
)
from tasks.training.prepared import Prepared


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
        default="teacher", description="First weights: as much of the teacher as fits, or random"
    )


@stage(output="student", version=6, libraries=TRAINING_LIBRARIES)
def distill(
    run: StageRun,
    config: DistillationConfig,
    *,
    student: NetworkConfig,
    prepared: Artifact,
    teacher: Artifact,
    soft_labels: Artifact,
) -> Summary:
    """Write `model.safetensors`, `model.json`, `curve.json` and `summary.json` of the student."""
    data = Prepared(prepared)
    model = build_network(data, student)
    if config.initialise == "teacher":
        initialise_from_teacher(model, load_recommender(teacher.folder))
    labels = SoftLabels(soft_labels.folder, item_index_sha256=data.split.item_index_sha256)
    training_set = training_set_of(data, model.max_length, student.training, labels=labels)
    counts = training_set.item_counts(len(data.items))
    candidates = distillation_candidates(counts, student.training)
    summary = train_and_save(
        run,
        model,
        data,
        student.training,
        training_set,
        candidates=candidates,
        loss=loss_of(config, labels, candidates, run.device),
        cold_items=find_cold_items(training_set, len(data.items)),
    )
    return summary.model_dump()


def loss_of(
    config: DistillationConfig, labels: SoftLabels, candidates: CandidateSet, device: str
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
    )
