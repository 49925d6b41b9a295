from datetime import date
from pathlib import Path

import pytest

from tasks.engine.night import Night, NightManifest, WorkspaceOwnedError, claim_workspace


def test_date_and_configuration_decide_the_manifest(tmp_path: Path) -> None:
    config = {"name": "test", "seed": 1}
    assert NightManifest.pinned(tmp_path, date(2026, 3, 10), config) is None
    night = Night(tmp_path, "test", date(2026, 3, 10), config, 3, {"a.csv": "abc"}, "cuda")
    NightManifest.pin(night)
    assert NightManifest.pinned(tmp_path, date(2026, 3, 10), dict(config)) == NightManifest(
        run_date=date(2026, 3, 10),
        name="test",
        champion=3,
        sources={"a.csv": "abc"},
        device="cuda",
        config=config,
    )
    others = [
        NightManifest.pinned(tmp_path, date(2026, 3, 11), config),
        NightManifest.pinned(tmp_path, date(2026, 3, 10), config | {"seed": 2}),
    ]
    assert others == [None, None]
    assert night.lake == tmp_path / "lake"


def test_a_workspace_belongs_to_one_name_and_one_source(tmp_path: Path) -> None:
    claim_workspace(tmp_path, name="shop", source={"interactions": "/a"})
    claim_workspace(tmp_path, name="shop", source={"interactions": "/a"})

    for name, path in (("other", "/a"), ("shop", "/b")):
        with pytest.raises(WorkspaceOwnedError, match="--workspace"):
            claim_workspace(tmp_path, name=name, source={"interactions": path})
