"""The laws of a synthetic world: bounds, popularity, what moves from day to day."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from recsys_core.synthetic.world import World, WorldConfig, write_world
from tests.small_world import FIRST, LAST, SMALL, read_events


def test_settings_are_bounded() -> None:
    for bad in ({"n_users": 0}, {"successor_probability": 1.0}, {"series_length": 3}):
        with pytest.raises(ValidationError):
            WorldConfig.model_validate(bad)


def test_popularity_is_concentrated_as_the_zipf_exponent_says(tmp_path: Path) -> None:
    shares: dict[float, float] = {}
    for exponent in (0.0, 1.1, 2.0):
        config = SMALL.model_copy(update={"zipf_exponent": exponent, "allow_repeats": True})
        write_world(tmp_path / str(exponent), config, first_day=FIRST, through=LAST)
        counts = read_events(tmp_path / str(exponent))["item_id"].value_counts()["count"].to_numpy()
        shares[exponent] = np.sort(counts)[-15:].sum() / counts.sum()
    assert shares[0.0] < 0.25 < shares[1.1] < shares[2.0]


@pytest.mark.parametrize("moving", ["trend_drift", "freshness_boost"])
def test_only_trends_and_freshness_make_days_differ(tmp_path: Path, moving: str) -> None:
    still = SMALL.model_copy(
        update={"trend_drift": 0.0, "freshness_boost": 0.0, "new_item_share": 0.0}
    )
    case = (["u000001"] * 2, [["i000001"]] * 2, [FIRST, LAST])
    write_world(tmp_path / "still", still, first_day=FIRST, through=LAST)
    _, rows = World.open(tmp_path / "still").next_item_probabilities(*case)
    np.testing.assert_array_equal(rows[0], rows[1])
    drifting = still.model_copy(update={moving: 0.5})
    write_world(tmp_path / "drifting", drifting, first_day=FIRST, through=LAST)
    _, rows = World.open(tmp_path / "drifting").next_item_probabilities(*case)
    assert np.abs(rows[0] - rows[1]).sum() > 0.001
