"""Artifacts: whole or not at all, and keyed by the code that made them."""

import os
from pathlib import Path

import pytest

from recsys_core.artifacts import (
    MANIFEST,
    Artifact,
    damaged_files,
    digest,
    is_finished,
    publish,
    read_json,
    read_manifest,
    replacing,
    sha256_file,
    write_json,
)

PACKAGES = ("recsys_core", "tasks")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "artifact"
    (folder / "part").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "part" / "b.txt").write_text("two")
    return Artifact("sample", "key", folder)


def test_a_published_folder_is_finished(artifact: Artifact) -> None:
    assert not is_finished(artifact.folder)
    publish(artifact, {"config": 1}, {"rows": 2})
    assert is_finished(artifact.folder)
    assert damaged_files(artifact.folder) == []
    assert artifact.summary == {"rows": 2}
    manifest = read_manifest(artifact.folder)
    assert (manifest["stage"], manifest["key"], manifest["parts"]) == (
        "sample",
        "key",
        {"config": 1},
    )
    assert manifest["files"]["part/b.txt"] == {
        "sha256": sha256_file(artifact.folder / "part" / "b.txt"),
        "bytes": 3,
    }


def test_the_manifest_depends_on_the_files_alone(artifact: Artifact) -> None:
    publish(artifact, {}, {})
    first = (artifact.folder / MANIFEST).read_bytes()
    os.utime(artifact.folder / "a.txt", (0, 0))
    publish(artifact, {}, {})
    assert (artifact.folder / MANIFEST).read_bytes() == first


def test_a_kill_before_the_end_leaves_no_manifest(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(artifact, {}, {})
    monkeypatch.undo()
    assert not is_finished(artifact.folder)
    with pytest.raises(FileNotFoundError, match="no finished output"):
        read_manifest(artifact.folder)

    publish(artifact, {}, {})
    assert set(read_manifest(artifact.folder)["files"]) == {"a.txt", "part/b.txt"}
    assert is_finished(artifact.folder)


def test_missing_and_truncated_files_are_noticed(artifact: Artifact) -> None:
    publish(artifact, {}, {})
    (artifact.folder / "a.txt").write_text("on")
    assert not is_finished(artifact.folder)
    (artifact.folder / "a.txt").write_text("eno")
    assert is_finished(artifact.folder)
    assert damaged_files(artifact.folder) == ["a.txt"]
    (artifact.folder / "part" / "b.txt").unlink()
    assert not is_finished(artifact.folder)
    assert damaged_files(artifact.folder) == ["a.txt", "part/b.txt"]


def test_a_missing_file_is_named(artifact: Artifact) -> None:
    assert artifact.file("a.txt").read_text() == "one"
    with pytest.raises(FileNotFoundError, match=r"sample/key has no file 'c\.txt'"):
        artifact.file("c.txt")


def test_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"b": [1, None], "a": "ä"})
    assert read_json(path) == {"a": "ä", "b": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": "ä", "b": [1, None]}
    path.write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_json(path)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(artifact: Artifact) -> None:
    path = artifact.file("a.txt")

    def write(text: str) -> None:
        with replacing(path) as draft:
            draft.write_text(text[:2])
            if text == "killed":
                raise KeyboardInterrupt
            draft.write_text(text)

    with pytest.raises(KeyboardInterrupt):
        write("killed")
    assert path.read_text() == "one"
    publish(artifact, {}, {})
    assert set(read_manifest(artifact.folder)["files"]) == {"a.txt", "part/b.txt"}
    write("new")
    assert path.read_text() == "new"
    assert list(path.parent.glob(".*")) == []


def test_the_digest_does_not_depend_on_the_order_of_names() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert digest([1, 2]) != digest([2, 1])
