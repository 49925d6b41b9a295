"""The differences between two keys, as text for `recdistill nightly --plan`."""

from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 4
_LONGEST = 32


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The differences between the parts of two keys; empty if they are equal.

    Args:
        before: `parts` of a manifest.
        after: Parts of the new key.

    Example:
        >>> changes({"version": 1, "config": {"k": 1}}, {"version": 1, "config": {"k": 2}})
        'config.k (1 → 2)'
    """
    found = list(_differences("", before, after))
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ", ".join([*found[:_SHOWN], *more])


def _differences(name: str, before: Any, after: Any) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for field in sorted({*before, *after}):
            dotted = f"{name}.{field}" if name else str(field)
            if name == "inputs":
                dotted = str(field)
            yield from _differences(dotted, before.get(field), after.get(field))
    else:
        yield f"{name} ({_shown(before)} → {_shown(after)})"


def _shown(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
