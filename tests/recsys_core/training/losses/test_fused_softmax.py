"""The fused loss is the cross-entropy; its kernel runs here in Triton's interpreter."""

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.training.loop import TrainingConfig
from recsys_core.training.losses import fused_softmax
from recsys_core.training.losses.fused_softmax import FusedLossError, fused_cross_entropy
from recsys_core.training.losses.selection import next_item_loss
from recsys_core.training.negative_sampling import FullCatalogue

SCRIPT = Path(__file__).with_name("fused_softmax_on_cpu.py")


def test_loss_and_gradients_are_those_of_float64(tmp_path: Path) -> None:
    out = tmp_path / "differences.json"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(SCRIPT), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(out.read_text())
    assert np.shape(differences) == (3, 4)
    assert np.max(differences) < 1e-5


def test_a_batch_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one position"):
        fused_cross_entropy(torch.zeros(0, 4), torch.zeros(3, 4), torch.zeros(0, dtype=torch.long))


def test_without_the_extra_it_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        return None if name == "liger_kernel" else util.find_spec(name)

    candidates = FullCatalogue(np.ones(3, np.int64))
    next_item_loss(TrainingConfig(fused_loss=True), candidates)
    monkeypatch.setattr(fused_softmax, "find_spec", find)
    next_item_loss(TrainingConfig(), candidates)
    with pytest.raises(
        FusedLossError, match=r"pip install 'recdistill\[gpu\]'; or set it to false"
    ):
        next_item_loss(TrainingConfig(fused_loss=True), candidates)
