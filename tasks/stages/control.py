"""Train the control: the student's size and budget, without a teacher.

What the student has over it is what distillation bought.
"""

from recsys_core.artifacts import Artifact
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import NetworkConfig, train_without_teacher
from tasks.training.prepared import Prepared


@stage
def control(run: StageRun, config: NetworkConfig, *, prepared: Artifact) -> Summary:
    """Write `model.safetensors`, `model.json` and `curve.json`."""
    return train_without_teacher(run, config, Prepared(prepared))
