"""Train the control: the student's size and budget, without a teacher.

The difference between the student and the control is the effect of distillation and of what the
student begins with. Where what ships was pruned, it was trained again, so the control gets those
epochs too.
"""

from recsys_core.artifacts import Artifact
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import (
    FUSED_LOSS_LIBRARY,
    TRAINING_LIBRARIES,
    NetworkConfig,
    train_without_teacher,
)
from tasks.training.prepared import Prepared


@stage(
    output="control",
    version=5,
    libraries=TRAINING_LIBRARIES,
    optional_libraries=FUSED_LOSS_LIBRARY,
)
def control(
    run: StageRun, config: NetworkConfig, *, recovery_epochs: int, prepared: Artifact
) -> Summary:
    """Write `model.safetensors`, `model.json`, `curve.json` and `summary.json`.

    Args:
        run: Folders, device and progress.
        config: The student's network and training.
        recovery_epochs: Epochs of the student's recovery after pruning; 0 without pruning.
        prepared: Tonight's data.
    """
    epochs = config.training.epochs + recovery_epochs
    training = config.training.model_copy(update={"epochs": epochs})
    same_budget = config.model_copy(update={"training": training})
    return train_without_teacher(run, same_budget, Prepared(prepared)).model_dump()
