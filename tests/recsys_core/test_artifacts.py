"""Artifacts: whole or not at all, and keyed by the code that made them."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_core.artifacts import (
    MANIFEST,
    Artifact,
    code_fingerprint,
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


SOURCES = {
    "__init__": "",
    "losses": '''"""Losses."""\n\nimport math\n\n\ndef loss(x: float) -> float:
    """The loss."""\n    return math.log(x)\n''',
    "loop": "from sample_code.losses import loss\n\nLOSS = loss\n",
    "student": "def train() -> None:\n    import sample_code.loop\n",
    "ingest": "import json\n",
    "report": "from sample_code import ingest\n",
}


@pytest.fixture
def write_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A package `sample_code` that can be edited."""
    folder = tmp_path / "sample_code"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> None:
        path = folder / name
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_text(text)
        os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))

    for name, text in SOURCES.items():
        write(f"{name}.py", text)
    (folder / "report.html.j2").write_text("<p>")
    importlib.invalidate_caches()
    return write


def _fingerprints() -> dict[str, str]:
    names = [name for name in SOURCES if name != "__init__"]
    return {name: code_fingerprint(f"sample_code.{name}", ("sample_code",)) for name in names}


def _changed_by(edit: Callable[[], None]) -> set[str]:
    before = _fingerprints()
    edit()
    after = _fingerprints()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import math", "import math  # for the logarithm"),
        ("The loss.", "Another sentence."),
        ('"""Losses."""\n', ""),
        ("math.log(x)", "(\n        math.log(x)\n    )"),
        ("import math\n", 'import math\n"""Text below a statement."""\n'),
    ],
)
def test_prose_and_layout_do_not_count(
    write_code: Callable[[str, str], None], old: str, new: str
) -> None:
    text = SOURCES["losses"]
    assert old in text
    assert _changed_by(lambda: write_code("losses.py", text.replace(old, new))) == set()


def test_an_edited_loss_changes_what_uses_it_and_nothing_else(
    write_code: Callable[[str, str], None],
) -> None:
    edited = SOURCES["losses"].replace("math.log(x)", "-math.log(x)")
    assert _changed_by(lambda: write_code("losses.py", edited)) == {"losses", "loop", "student"}


def test_a_module_imported_from_its_package_counts(write_code: Callable[[str, str], None]) -> None:
    assert _changed_by(lambda: write_code("ingest.py", "import math\n")) == {"ingest", "report"}


def test_a_template_counts_with_the_module_beside_it(
    write_code: Callable[[str, str], None],
) -> None:
    assert _changed_by(lambda: write_code("report.html.j2", "<b>")) == {"report"}
    assert _changed_by(lambda: write_code("README.md", "Read me.")) == set()


def test_nothing_is_imported_to_find_out(write_code: Callable[[str, str], None]) -> None:
    write_code("ingest.py", "raise SystemExit\n")
    _fingerprints()
    assert "sample_code.ingest" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match=r"sample_code\.nothing"):
        code_fingerprint("sample_code.nothing", ("sample_code",))


@pytest.mark.parametrize(
    ("module", "depends"),
    [
        ("tasks.stages.train_teacher", True),
        ("tasks.stages.distill", True),
        ("tasks.stages.control", True),
        ("tasks.stages.ingest", False),
        ("tasks.stages.prepare", False),
        ("tasks.stages.gate", False),
    ],
)
def test_which_stages_depend_on_the_training_loss(
    monkeypatch: pytest.MonkeyPatch, module: str, *, depends: bool
) -> None:
    """Read through the real sources: a stage's key is made of the modules it reaches."""
    from recsys_core import artifacts

    read: list[Path] = []
    original = artifacts._read_source

    def record(path: Path, modified_ns: int) -> object:
        read.append(path)
        return original(path, modified_ns)

    monkeypatch.setattr(artifacts, "_read_source", record)
    code_fingerprint(module, PACKAGES)
    names = {"/".join(path.parts[-3:]) for path in read}
    assert ("recsys_core/training/losses.py" in names) == depends
    assert any(name.endswith("tasks/engine/stage.py") for name in names)
