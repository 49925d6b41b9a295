"""Train the teacher: the large network, on what really came next."""

from recsys_core.artifacts import Artifact
from tasks.stage import StageRun, Summary, stage
from tasks.training import NetworkConfig, train_without_teacher


@stage
def train_teacher(run: StageRun, config: NetworkConfig, *, prepared: Artifact) -> Summary:
    """Write `model.safetensors`, `model.json` and `curve.json`."""
    return train_without_teacher(run, config, prepared)
