from datetime import date
from pathlib import Path

import pytest

from tasks.engine.night import Night, NightManifest, WorkspaceOwnedError, claim_workspace


def test_date_and_configuration_decide_the_manifest(tmp_path: Path) -> None:
    config = {"name": "test", "seed": 1}
    manifest = NightManifest.of(tmp_path, date(2026, 3, 10), config)
    assert manifest.read() is None
    night = Night(tmp_path, "test", date(2026, 3, 10), config, 3, {"a.csv": "abc"}, "cuda")
    manifest.write(night)
    assert NightManifest.of(tmp_path, date(2026, 3, 10), dict(config)).read() == {
        "run_date": "2026-03-10",
        "name": "test",
        "champion": 3,
        "sources": {"a.csv": "abc"},
        "device": "cuda",
        "config": config,
    }
    others = [
        NightManifest.of(tmp_path, date(2026, 3, 11), config),
        NightManifest.of(tmp_path, date(2026, 3, 10), config | {"seed": 2}),
    ]
    assert [other.read() for other in others] == [None, None]
    assert night.lake == tmp_path / "lake"


def test_a_workspace_belongs_to_one_name_and_one_source(tmp_path: Path) -> None:
    claim_workspace(tmp_path, name="shop", source={"interactions": "/a"})
    claim_workspace(tmp_path, name="shop", source={"interactions": "/a"})

    for name, path in (("other", "/a"), ("shop", "/b")):
        with pytest.raises(WorkspaceOwnedError, match="--workspace"):
            claim_workspace(tmp_path, name=name, source={"interactions": path})
