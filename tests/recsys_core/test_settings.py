import math

import pytest
from pydantic import ValidationError

from recsys_core.settings import Settings


class _Sample(Settings):
    value: float = 1.0


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _Sample().value = 2.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("fields", [{"unknown": 1}, {"value": math.inf}, {"value": math.nan}])
def test_mistakes_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        _Sample(**fields)
