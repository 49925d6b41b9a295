"""Two processes train as one does with the same batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys_core.artifacts import Artifact
from recsys_core.training.batch import Batch
from recsys_core.training.parallel import Shard, share_of
from recsys_core.training.sparse_batch import SparseBatch

SCRIPT = Path(__file__).with_name("distributed_training.py")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _curves(
    world: Artifact, out: Path, n_processes: int, *arguments: str
) -> list[list[list[float]]]:
    out.mkdir()
    launch = [sys.executable]
    if n_processes > 1:
        launch += ["-m", "torch.distributed.run", f"--nproc-per-node={n_processes}"]
        launch += ["--master-addr=127.0.0.1", f"--master-port={_free_port()}"]
    command = [*launch, str(SCRIPT), str(world.file("histories")), str(out), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"curve-{rank}.json").read_text()) for rank in range(n_processes)]


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("batch_size", ["16", "1"])
def test_two_processes_have_the_loss_curve_of_one(
    obvious_world: Artifact, tmp_path: Path, loss: str, batch_size: str
) -> None:
    """With a batch of one window the second process never has any."""
    (alone,) = _curves(obvious_world, tmp_path / "one", 1, loss, batch_size)
    first, second = _curves(obvious_world, tmp_path / "two", 2, loss, batch_size)
    assert first == second
    torch.testing.assert_close(torch.tensor(first), torch.tensor(alone), rtol=1e-4, atol=1e-5)


def test_rows_are_dealt_out_whole() -> None:
    batch = Batch(
        torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0], [7, 8, 0]]),
        torch.tensor([[2, 0, 9], [5, 0, 0], [6, 7, 0], [8, 9, 0]]),
        torch.arange(14.0).view(7, 2),
        torch.tensor([1.0, 2, 3, 4, 5, 6, 7]),
        earlier=torch.tensor([[0, 0], [1, 2], [3, 0], [4, 0]]),
        sparse_labels=SparseBatch(torch.arange(7)[:, None], log_normalizer=torch.arange(7.0)),
    )
    parts = [Shard(rank, 3).rows_of(batch) for rank in range(3)]
    assert parts[0].history.tolist() == [[1, 2, 3], [7, 8, 0]]
    assert parts[1].history.tolist() == [[4]]
    assert parts[2].targets.tolist() == [[6, 7]]
    assert [part.weights.tolist() for part in parts if part.weights is not None] == [
        [1, 2, 6, 7],
        [3],
        [4, 5],
    ]
    assert parts[0].earlier is not None
    assert parts[0].earlier.tolist() == [[0, 0], [4, 0]]
    assert parts[1].teacher_states is not None
    assert parts[1].teacher_states.tolist() == [[4, 5]]
    assert parts[2].sparse_labels is not None
    assert parts[2].sparse_labels.top_ids.tolist() == [[3], [4]]
    assert parts[2].sparse_labels.log_normalizer is not None
    assert parts[2].sparse_labels.log_normalizer.tolist() == [3, 4]
    assert parts[2].sparse_labels.top_logits is None
    shares = [share_of(part, batch) for part in parts]
    assert shares == pytest.approx([16 / 28, 3 / 28, 9 / 28])


def test_alone_nothing_changes() -> None:
    batch = Batch(torch.tensor([[1]]), torch.tensor([[2]]))
    alone = Shard.current()
    assert (alone.rank, alone.size, alone.leads) == (0, 1, True)
    assert alone.rows_of(batch) is batch
    assert alone.broadcast(0.1) == 0.1
