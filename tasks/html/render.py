"""Pages that need no network, no script and no server: templates below `tasks`, one style."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FINDING_BADGES = {
    "passed": ("pass", "met"),
    "warned": ("warned", "warns"),
    "failed": ("fail", "not met"),
    "skipped": ("skipped", "skipped"),
}
"""How a finding's outcome is shown: class and text."""


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill in a template.

    Everything is escaped: titles, file names and reasons come from other people's data.

    Args:
        template: Its path below `tasks`.
        context: Its variables, all that it names.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(context)
