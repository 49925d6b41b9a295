"""A user of a whole night is forgotten: nothing in the workspace names them any more."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from flows.cli.forget import forget, look
from flows.config import NightlyConfig
from flows.nightly import nightly, plan
from flows.services.lock import WorkspaceBusyError, workspace_lock
from recsys_core.artifacts import damaged_files, read_json
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.lake.tables import NoLakeError
from recsys_core.data.schema import FORGOTTEN_USER
from recsys_core.data.soft_labels.factorized import StateLabels
from recsys_core.data.soft_labels.store import SoftLabels
from tasks.engine.outputs import outputs
from tasks.privacy.forget import UserTraces
from tasks.stages.ingest import ingest
from tasks.stages.prepare import prepare
from tasks.stages.write_soft_labels import write_soft_labels
from tasks.training.prepared import Prepared
from tests.flows.conftest import NAMED_USER
from tests.tiny import RUN_DATE
from tests.traces import traces


@pytest.fixture
def forgotten(first_night: NightlyConfig) -> tuple[NightlyConfig, UserTraces, Path]:
    """The night after the user was forgotten, what was found before, and the record."""
    left = first_night.workspace / "stages" / "train_teacher" / "killed.scratch"
    left.mkdir()
    (left / "state").write_text(NAMED_USER)
    found = look(first_night, NAMED_USER)
    return first_night, found, forget(first_night, NAMED_USER)


def test_all_places_are_found(forgotten: tuple[NightlyConfig, UserTraces, Path]) -> None:
    _, found, record = forgotten
    assert found.interactions > 0
    assert {name.split("/")[0] for name, _ in found.outputs} == {
        "prepare",
        "write_soft_labels",
        "evaluate",
    }
    assert found.models == ("tiny-student/1 (challenger, champion)",)
    assert f"interactions/{RUN_DATE - timedelta(days=1)}.parquet" in found.sources
    noted = read_json(record)
    assert noted["done"] is True
    assert noted["found"]["interactions"] == found.interactions


def test_nothing_in_the_workspace_names_the_user(
    forgotten: tuple[NightlyConfig, UserTraces, Path],
) -> None:
    assert traces(forgotten[0].workspace, NAMED_USER) == []


def test_outputs_stay_whole_and_finished(forgotten: tuple[NightlyConfig, UserTraces, Path]) -> None:
    workspace = forgotten[0].workspace
    assert [one.name for one in outputs(workspace) if damaged_files(one.folder)] == []
    assert all(not decision.runs for decision in plan(forgotten[0], RUN_DATE))


def test_soft_labels_without_the_user_can_still_be_read(
    forgotten: tuple[NightlyConfig, UserTraces, Path],
) -> None:
    outcome = plan(forgotten[0], RUN_DATE)
    prepared, folder = Prepared(outcome[prepare]), outcome[write_soft_labels].folder
    labels = SoftLabels(folder, item_index_sha256=prepared.split.item_index_sha256)
    histories = read_training_histories(prepared.buckets)
    aligned = labels.align(histories, prepared.buckets)
    assert isinstance(aligned, StateLabels)
    assert len(aligned.states) == labels.description.rows


def test_others_keep_their_rows(forgotten: tuple[NightlyConfig, UserTraces, Path]) -> None:
    config, found, _ = forgotten
    source = pl.concat(
        pl.read_parquet(path)
        for path in sorted((config.synthetic.folder / "interactions").iterdir())
    )
    held = pl.scan_delta(str(config.workspace / "lake" / "interactions")).collect()
    assert held.height == source.height - found.interactions
    assert held["user_id"].n_unique() == source["user_id"].n_unique() - 1


def test_the_next_night_refuses_the_files_rows(
    forgotten: tuple[NightlyConfig, UserTraces, Path],
) -> None:
    """Also those of a file that is exported again, which is read again as a whole."""
    config, _, _ = forgotten
    path = config.synthetic.folder / "interactions" / f"{RUN_DATE - timedelta(days=1)}.parquet"
    pl.read_parquet(path).sort("item_id").write_parquet(path)
    nightly(config, RUN_DATE + timedelta(days=1))
    assert traces(config.workspace, NAMED_USER) == []
    outcome = plan(config, RUN_DATE + timedelta(days=1))
    reasons = read_json(outcome[ingest].file("ingest.json"))["reasons"]
    assert list(reasons) == [FORGOTTEN_USER]


def test_again_it_still_knows_what_was_found(
    forgotten: tuple[NightlyConfig, UserTraces, Path],
) -> None:
    config, found, record = forgotten
    before = read_json(record)["found"]
    assert look(config, NAMED_USER).outputs == ()
    assert forget(config, NAMED_USER) == record
    assert read_json(record)["found"] == before
    assert before["interactions"] == found.interactions


def test_not_while_a_night_is_at_work(first_night: NightlyConfig) -> None:
    with workspace_lock(first_night.workspace), pytest.raises(WorkspaceBusyError):
        forget(first_night, "somebody")


def test_without_a_lake_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoLakeError, match="Run a night first"):
        look(NightlyConfig(workspace=tmp_path / "none"), "somebody")
