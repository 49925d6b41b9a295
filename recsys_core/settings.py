"""The base class of all settings, and the progress callback of long work."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

Progress = Callable[[float, str], None]
"""Called with the finished fraction (0 to 1) and a short message. It must be cheap."""


class Settings(BaseModel):
    """Frozen settings that refuse unknown fields and infinities; a TOML file gives the values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def silent(fraction: float, message: str) -> None:
    """A progress callback that does nothing."""


def part(progress: Progress, number: int, n_parts: int, label: str = "") -> Progress:
    """The progress of one of several equal parts, as a share of the whole.

    Args:
        progress: Receives the progress of the whole.
        number: Index of the part, from 0.
        n_parts: Number of parts.
        label: If given, and there are several parts, messages begin with it.

    Example:
        >>> second = part(lambda fraction, message: print(fraction, message), 1, 4, "file 2 of 4")
        >>> second(0.5, "loss 3.2")
        0.375 file 2 of 4, loss 3.2
    """

    def report(fraction: float, message: str) -> None:
        prefix = f"{label}, " if label and n_parts > 1 else ""
        progress((number + fraction) / n_parts, f"{prefix}{message}")

    return report
