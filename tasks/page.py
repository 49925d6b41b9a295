"""Pages that need no network, no script and no server: templates and style beside this module."""

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
    """Fill in a template of this folder.

    Everything is escaped: titles, file names and reasons come from other people's data.

    Args:
        template: Its file name.
        context: Its variables, all that it names.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(context)
