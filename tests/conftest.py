"""What many tests share: shape checks, a tiny world with an obvious rule, one Prefect server."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings
from jaxtyping import config, install_import_hook

# Every shape annotation of the code that uses tensors is checked while the tests run.
install_import_hook(
    [
        "recsys_core.compression",
        "recsys_core.distillation",
        "recsys_core.models",
        "recsys_core.training",
    ],
    "beartype.beartype",
)

from recsys_core.artifacts import Artifact, write_json  # noqa: E402 - after the hook
from recsys_core.data.histories.targets import TargetConfig  # noqa: E402
from tasks.contracts.split import Split  # noqa: E402
from tasks.engine.night import Night  # noqa: E402
from tasks.engine.stage import StageRun  # noqa: E402
from tests.targets import PLAIN_EVENTS  # noqa: E402

torch.set_num_threads(1)
# A slow machine is no failure: properties have no deadline.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

User = tuple[str, list[int], int, int]
"""user_id, item_idx of the events, train_end, validation_end."""


@pytest.fixture(scope="session")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model of one small layer with random weights, saved."""
    from tests.sentence_model import save_sentence_model

    return save_sentence_model(tmp_path_factory.mktemp("sentence-model"))


@pytest.fixture
def production_checks() -> Iterator[None]:
    """Without the shape checks, so that what refuses a mistake is the code itself."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def write_buckets() -> Callable[[Path, Sequence[Sequence[User]]], list[Path]]:
    """Write bucket files of histories as the prepare stage does, one for each list of users."""

    def write(folder: Path, buckets: Sequence[Sequence[User]]) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        schema = {
            "user_id": pl.String,
            "item_idx": pl.List(pl.Int32),
            "train_end": pl.Int32,
            "validation_end": pl.Int32,
        }
        paths = [folder / f"bucket-{i:03d}.parquet" for i in range(len(buckets))]
        for users, path in zip(buckets, paths, strict=True):
            table = pl.DataFrame(sorted(users), schema=schema, orient="row")
            table.with_columns(*PLAIN_EVENTS).write_parquet(path)
        return paths

    return write


@pytest.fixture(scope="session")
def obvious_world(
    tmp_path_factory: pytest.TempPathFactory,
    write_buckets: Callable[[Path, Sequence[Sequence[User]]], list[Path]],
) -> Artifact:
    """The prepare stage's output for a world where the next item follows from the last one.

    16 items in a secret circle; each of 60 users walks along it for at most 12 steps, so no item
    repeats. The last event is the test target, the one before it the validation target. One bucket
    is empty.
    """
    folder = tmp_path_factory.mktemp("obvious")
    random = np.random.default_rng(3)
    n_items = 16
    circle = random.permutation(n_items) + 1
    walks = [
        circle[(random.integers(n_items) + np.arange(random.integers(6, 13))) % n_items].tolist()
        for _ in range(60)
    ]
    users = [(f"u{i:02d}", walk, len(walk) - 2, len(walk) - 1) for i, walk in enumerate(walks)]
    write_buckets(folder / "histories", [users[:25], [], users[25:]])
    item_idx = pl.Series(range(1, n_items + 1), dtype=pl.Int32)
    trained = [item for _, walk, end, _ in users for item in walk[:end]]
    counts = pl.Series(np.bincount(trained, minlength=n_items + 1)[1:], dtype=pl.Int64)
    pl.DataFrame(
        {
            "item_idx": item_idx,
            "item_id": [f"i{idx}" for idx in item_idx],
            "title": [None, *(f"Thing {idx}" for idx in item_idx[1:])],
            "categories": [["odd" if idx % 2 else "even"] for idx in item_idx],
            "candidate_validation": True,
            "candidate_test": True,
            "active": True,
            "train_count": counts,
            "recent_count": counts,
        }
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame({"item_idx": item_idx}).write_parquet(folder / "embeddings.parquet")
    Split(
        kind="leave_one_out",
        trained_through=None,
        validation_start=None,
        test_start=None,
        n_items=n_items,
        item_index_sha256="index",
        n_buckets=3,
        lake_version=0,
        lake_rows=sum(len(walk) for walk in walks),
        event_types=("view",),
        targets=TargetConfig(),
        exclude_seen=True,
        text_encoder=None,
        n_users=len(users),
        train_events=len(trained),
        validation_events=len(users),
        test_events=len(users),
    ).save(folder)
    return Artifact("prepare", "obvious", folder)


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """A night in an empty workspace."""
    return Night(tmp_path / "workspace", "test", date(2026, 3, 10), {}, None, {})


@pytest.fixture
def make_run(night: Night) -> Callable[[str], StageRun]:
    """Surroundings of a stage's body; the same name gives the same folders, as a rerun does."""

    def make(name: str) -> StageRun:
        out, scratch = night.workspace / name, night.workspace / f"{name}.scratch"
        out.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(exist_ok=True)
        return StageRun.bare(night.workspace, out, scratch=scratch, key=name)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make a file system of so many kB; asked again, the same one gets that size."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def make(kilobytes: int) -> Path:
        how = "remount," if disk.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{how}size={kilobytes}k", "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(command, check=False).returncode:
            pytest.skip("mounting a small file system needs root")
        return disk

    yield make
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with an empty database, one for the whole session."""
    from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    quiet = {PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}  # tasks may run without a flow
    with prefect_test_harness(server_startup_timeout=60), temporary_settings(quiet):  # pyright: ignore[reportArgumentType]
        yield


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served model of a random network: 40 items, "i1" the least popular, "i40" the most."""
    from recsys_core.compression.export import export_onnx
    from recsys_core.compression.quantization import quantize
    from recsys_core.models.recommender import ModelConfig, Recommender
    from recsys_core.serving.folder import write_item_ids
    from recsys_core.serving.scorer import FORMAT

    folder = tmp_path_factory.mktemp("served")
    shape = ModelConfig(embedding_dim=16, n_layers=1, n_heads=2, ffn_dim=16, max_length=8)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Recommender(40, shape)
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    graph = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    export_onnx(model, graph, active=range(40, 0, -1))
    quantize(graph, folder / "model.onnx")
    write_item_ids(folder, [f"i{idx}" for idx in range(40, 0, -1)])
    config = {
        "format": FORMAT,
        "max_length": 8,
        "n_items": 40,
        "embedding_dim": 16,
        "trained_through": "2026-03-08T00:00:00+00:00",
        "item_index_sha256": "index",
        "exclude_seen": True,
        "metadata": {
            "size": "main",
            "network": shape.model_dump(),
            "precision": "int8",
            "recency_prior": None,
        },
    }
    write_json(folder / "config.json", config)
    return folder
