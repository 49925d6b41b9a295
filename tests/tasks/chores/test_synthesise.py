"""The synthetic world grows by a day a night."""

from datetime import date
from pathlib import Path

import pytest

from recsys_core.synthetic.world import WorldConfig
from tasks.chores.synthesise import synthesise

WORLD = WorldConfig(n_users=30, n_items=40, n_categories=4, events_per_user_day=2.0)


@pytest.mark.usefixtures("prefect_server")
def test_the_world_reaches_to_the_day_before_the_run_date(tmp_path: Path) -> None:
    synthesise(tmp_path, WORLD, days=3, run_date=date(2026, 3, 10))
    days = sorted(path.name for path in tmp_path.rglob("*2026-*"))
    assert [name[-18:-8] for name in days] == ["2026-03-07", "2026-03-08", "2026-03-09"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*2026-*") if path.is_file()}

    synthesise(tmp_path, WORLD, days=3, run_date=date(2026, 3, 11))
    added = set(tmp_path.rglob("*2026-*")) - set(before)
    assert [path.name[-18:-8] for path in added] == ["2026-03-10"]
    assert all(path.read_bytes() == content for path, content in before.items())
