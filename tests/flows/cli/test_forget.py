"""A user of a whole night is forgotten: nothing in the workspace names them any more."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from flows.cli.forget import forget, look
from flows.config import NightlyConfig
from flows.nightly import nightly, planned
from flows.services.lock import WorkspaceBusyError, workspace_lock
from recsys_core.artifacts import damaged_files, read_json
from recsys_core.data.lake.tables import NoLakeError
from recsys_core.data.schema import FORGOTTEN_USER
from tasks.engine.outputs import outputs
from tasks.privacy.forget import UserTraces
from tests.tiny import RUN_DATE, tiny_settings
from tests.traces import traces

USER = "a-user-to-forget"


def _rename_a_user(world: Path) -> None:
    """Let a user of the world be called by a name that is found wherever it is written."""
    days = [(path, pl.read_parquet(path)) for path in sorted((world / "interactions").iterdir())]
    first, last = (days[at][1]["user_id"].unique().implode() for at in (0, -1))
    known = days[0][1].filter(pl.col("user_id").is_in(last), pl.col("user_id").is_in(first))
    most = known["user_id"].mode().sort()[0]
    for path, rows in days:
        name = pl.when(pl.col("user_id") == most).then(pl.lit(USER)).otherwise("user_id")
        rows.with_columns(name.alias("user_id")).write_parquet(path)


@pytest.fixture(scope="module")
def night(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> NightlyConfig:
    """A night with the user, whose source files lie outside of the workspace."""
    folder = tmp_path_factory.mktemp("forget")
    settings = tiny_settings(folder / "workspace")
    settings["synthetic"]["folder"] = str(folder / "world")
    config = NightlyConfig.model_validate(settings)
    from tasks.chores.synthesise import synthesise

    synthesise(config.synthetic.folder, config.synthetic.world, days=8, run_date=RUN_DATE)
    _rename_a_user(config.synthetic.folder)
    nightly(config, RUN_DATE)
    return config


@pytest.fixture(scope="module")
def forgotten(night: NightlyConfig) -> tuple[NightlyConfig, UserTraces, Path]:
    """The night after the user was forgotten, what was found before, and the record."""
    left = night.workspace / "stages" / "train_teacher" / "killed.scratch"
    left.mkdir()
    (left / "state").write_text(USER)
    found = look(night, USER)
    return night, found, forget(night, USER)


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
    assert traces(forgotten[0].workspace, USER) == []


def test_outputs_stay_whole_and_finished(forgotten: tuple[NightlyConfig, UserTraces, Path]) -> None:
    workspace = forgotten[0].workspace
    assert [one.name for one in outputs(workspace) if damaged_files(one.folder)] == []
    assert all(not step.runs for step in planned(forgotten[0], RUN_DATE)[0])


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
    assert traces(config.workspace, USER) == []
    made = planned(config, RUN_DATE + timedelta(days=1))[1]
    reasons = read_json(made["ingested"].file("ingest.json"))["reasons"]
    assert list(reasons) == [FORGOTTEN_USER]


def test_again_it_still_knows_what_was_found(
    forgotten: tuple[NightlyConfig, UserTraces, Path],
) -> None:
    config, found, record = forgotten
    before = read_json(record)["found"]
    assert look(config, USER).outputs == ()
    assert forget(config, USER) == record
    assert read_json(record)["found"] == before
    assert before["interactions"] == found.interactions


def test_not_while_a_night_is_at_work(night: NightlyConfig) -> None:
    with workspace_lock(night.workspace), pytest.raises(WorkspaceBusyError):
        forget(night, "somebody")


def test_without_a_lake_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoLakeError, match="Run a night first"):
        look(NightlyConfig(workspace=tmp_path / "none"), "somebody")
