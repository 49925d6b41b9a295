import shutil
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from recsys_core.artifacts import read_json, write_json
from recsys_core.serving.scorer import Scorer
from tasks.engine.night import Night
from tasks.registry.store import (
    CHAMPION,
    TEACHER_FILES,
    Registry,
    RegistryConfig,
    champion_version,
    load_scorer,
    student_name,
)


@pytest.fixture
def run_id(registry: Registry) -> str:
    return registry.open_run("demo", "2026-03-10", "night-key")


def register(
    registry: Registry, run_id: str, served_folder: Path, scratch: Path, key: str = "k1"
) -> int:
    folder = scratch / "model"
    shutil.copytree(served_folder, folder, dirs_exist_ok=True)
    return registry.register_student(
        "test-student",
        key=key,
        run_id=run_id,
        folder=folder,
        scratch=scratch,
        tags={"run_date": "2026-03-10"},
        description="A *model*.",
    )


def test_a_workspace_without_a_registry_has_no_champion(tmp_path: Path) -> None:
    assert champion_version(tmp_path / "w", RegistryConfig(), "test") is None
    assert not (tmp_path / "w").exists()


def test_everything_lies_in_the_workspace(workspace: Path, registry: Registry, run_id: str) -> None:
    assert registry.uri == f"sqlite:///{workspace}/mlflow.db"
    registry.log_night(run_id, params={}, metrics={}, curves={}, artifacts=[Path(__file__)])
    (found,) = workspace.glob("mlartifacts/**/test_store.py")
    assert run_id in str(found)


def test_a_run_is_found_again(registry: Registry, run_id: str) -> None:
    assert registry.open_run("demo", "2026-03-10", "night-key") == run_id
    registry.finish_run(run_id)
    assert registry.open_run("demo", "2026-03-10", "night-key") == run_id
    assert registry.open_run("demo", "2026-03-10", "other-key") != run_id


def test_logging_twice_is_logging_once(registry: Registry, run_id: str) -> None:
    params = {f"setting.{i:03d}": str(i) for i in range(230)}
    for _ in range(2):
        registry.log_night(
            run_id,
            params=params,
            metrics={"test/compressed/all/ndcg_at_10": 0.25},
            curves={"curve/student/loss": [(epoch, 1 / epoch) for epoch in range(1, 150)]},
            artifacts=[],
        )
    assert registry.client.get_run(run_id).data.params == params
    history = registry.client.get_metric_history(run_id, "curve/student/loss")
    assert sorted((point.step, point.value) for point in history) == [
        (epoch, 1 / epoch) for epoch in range(1, 150)
    ]
    assert len(registry.client.get_metric_history(run_id, "test/compressed/all/ndcg_at_10")) == 1


def test_a_version_is_made_once_for_each_key(
    registry: Registry, run_id: str, served_folder: Path, tmp_path: Path
) -> None:
    versions = [
        register(registry, run_id, served_folder, tmp_path, key) for key in ("k1", "k1", "k2", "k1")
    ]
    assert versions == [1, 1, 2, 1]
    version = registry.client.get_model_version("test-student", "1")
    assert version.tags["run_date"] == "2026-03-10"
    assert version.description == "A *model*."
    assert version.run_id == run_id


def test_a_kill_while_packaging_leaves_nothing_behind(
    registry: Registry,
    run_id: str,
    served_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(registry.client, "create_model_version", die)
        with pytest.raises(KeyboardInterrupt):
            register(registry, run_id, served_folder, tmp_path)
    assert register(registry, run_id, served_folder, tmp_path) == 1
    assert len(registry.client.search_model_versions("name = 'test-student'")) == 1
    loaded = registry.load_student("test-student", 1)
    assert len(loaded.predict(pd.DataFrame({"history": [["i3"]]}))["item_ids"][0]) == 10


def test_aliases_and_tags(
    workspace: Path,
    night: Night,
    registry: Registry,
    run_id: str,
    served_folder: Path,
    tmp_path: Path,
) -> None:
    for key in ("k1", "k2"):
        register(registry, run_id, served_folder, tmp_path, key)
    assert student_name(night.name) == "test-student"
    assert champion_version(workspace, RegistryConfig(), "test") is None
    registry.set_alias("test-student", CHAMPION, 2)
    assert champion_version(workspace, RegistryConfig(), "test") == 2
    assert champion_version(workspace, RegistryConfig(), "another") is None
    registry.tag_version("test-student", 1, {"decision": "refused"})
    assert registry.client.get_model_version("test-student", "1").tags["decision"] == "refused"
    by_alias = registry.load_student("test-student", CHAMPION)
    assert by_alias.predict(pd.DataFrame({"history": [[]]}))["item_ids"][0][:2] == ["i40", "i39"]


def test_a_registered_scorer_is_the_one_that_was_registered(
    night: Night, registry: Registry, run_id: str, served_folder: Path, tmp_path: Path
) -> None:
    version = register(registry, run_id, served_folder, tmp_path)
    scorer, folder = load_scorer(night.workspace, RegistryConfig(), "test", version)
    assert (folder / "model.onnx").read_bytes() == (served_folder / "model.onnx").read_bytes()
    history = [["i3", "i17"]]
    assert scorer.recommend(history) == Scorer(served_folder).recommend(history)


def test_teachers_have_a_path_of_their_own(registry: Registry, run_id: str, tmp_path: Path) -> None:
    write_json(tmp_path / "files" / "model.json", {"n_items": 40})
    fields = {"run_id": run_id, "folder": tmp_path / "files", "tags": {}, "description": "-"}
    registry.register_files("test-teacher", key="k1", artifact_path=TEACHER_FILES, **fields)
    paths = {file.path for file in registry.client.list_artifacts(run_id)}
    assert paths == {"teacher"}
    assert read_json(registry.download("test-teacher", 1) / "model.json") == {"n_items": 40}


def test_teachers_under_the_students_path_still_load(
    registry: Registry, run_id: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "files" / "model.json", {"n_items": 40})
    fields = {"run_id": run_id, "folder": tmp_path / "files", "tags": {}, "description": "-"}
    registry.register_files("test-teacher", key="old", artifact_path="student", **fields)
    again = registry.register_files(
        "test-teacher", key="old", artifact_path=TEACHER_FILES, **fields
    )
    assert again == 1
    assert read_json(registry.download("test-teacher", 1) / "model.json") == {"n_items": 40}


def test_passwords_do_not_belong_into_settings() -> None:
    with pytest.raises(ValidationError, match="MLFLOW_TRACKING_PASSWORD"):
        RegistryConfig(tracking_uri="postgresql://me:secret@db/mlflow")
    uri = "http://127.0.0.1:5000"
    assert RegistryConfig(tracking_uri=uri).resolved_uri(Path("w")) == uri
