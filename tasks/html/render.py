"""Pages that need no network, script or server, from templates below `tasks` and one style."""

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
"""CSS class and text of each outcome of a finding."""


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill in a template.

    Everything is escaped, because titles, file names and reasons come from the user's data.

    Args:
        template: Its path below `tasks`.
        context: All variables of the template.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(context)
