"""The one base of all settings, and the progress callback that long work reports to."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

Progress = Callable[[float, str], None]
"""Called with the finished fraction (0 to 1) and a short message; must be cheap."""


class Settings(BaseModel):
    """Frozen, refuses unknown fields and infinities; the values are those of a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def silent(fraction: float, message: str) -> None:
    """Progress that nobody watches."""
