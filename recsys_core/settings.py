"""The base class of all settings, and the progress callback of long work."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

Progress = Callable[[float, str], None]
"""Called with the finished fraction (0 to 1) and a short message; must be cheap."""


class Settings(BaseModel):
    """Frozen settings that refuse unknown fields and infinities; a TOML file gives the values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def silent(fraction: float, message: str) -> None:
    """A progress callback that does nothing."""
