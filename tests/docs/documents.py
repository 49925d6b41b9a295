"""The documents as Markdown: fenced blocks, code spans, headings and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks, in order."""
    return [Block(*found) for found in _BLOCK.findall(markdown)]


def code_spans(markdown: str) -> list[str]:
    """All code spans outside of fenced blocks, on one line each."""
    return [" ".join(span.split()) for span in _SPAN.findall(_prose(markdown))]


def link_targets(markdown: str) -> list[str]:
    """Where links lead."""
    return _LINK.findall(_prose(markdown))


def anchors(markdown: str) -> set[str]:
    """What a link may name after `#`, spelt as GitHub does."""
    headings = _HEADING.findall(_prose(markdown))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tree_paths(text: str) -> Iterator[str]:
    """The paths in a drawn tree: one name per line, indented by two blanks a level."""
    folders: list[str] = []
    for line in text.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        yield "".join(folders)


def _prose(markdown: str) -> str:
    return _BLOCK.sub("", markdown)
