"""Train the control: the student's size and budget, without a teacher.

The difference between the student and the control is the effect of distillation.
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
    version=2,
    libraries=TRAINING_LIBRARIES,
    optional_libraries=FUSED_LOSS_LIBRARY,
)
def control(run: StageRun, config: NetworkConfig, *, prepared: Artifact) -> Summary:
    """Write `model.safetensors`, `model.json`, `curve.json` and `summary.json`."""
    return train_without_teacher(run, config, Prepared(prepared)).model_dump()
