"""One small world for all tests of the synthetic world; none of them changes it."""

from pathlib import Path

import numpy as np
import pytest

from recsys_core.synthetic.world import World, write_world
from tests.small_world import FIRST, LAST, SMALL, Cases, Truth, read_cases


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, SMALL, first_day=FIRST, through=LAST)
    return folder


@pytest.fixture(scope="session")
def cases(folder: Path) -> Cases:
    return read_cases(folder)


@pytest.fixture(scope="session")
def truth(folder: Path, cases: Cases) -> Truth:
    """True probabilities of every event, and the column of what happened."""
    item_ids, probabilities = World.open(folder).next_item_probabilities(
        cases.users, cases.histories, cases.days
    )
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    return probabilities, np.array([columns[target] for target in cases.targets])
