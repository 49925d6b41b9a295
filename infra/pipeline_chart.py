"""Draw the pipeline into docs/architecture.md, from its declaration in flows/pipeline.py.

python -m infra.pipeline_chart            rewrite the chart and the table of stages

A test fails if the document and the declaration differ.
"""

from collections.abc import Iterator
from pathlib import Path

from flows.pipeline import FACTS, PIPELINE, Pipeline, Step

DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN = "<!-- written by `python -m infra.pipeline_chart` -->"
END = "<!-- end of what it writes -->"
_PROPERTIES = {
    "events": "source",
    "max_shipped_bytes": "gate.rules",
    "recovery_epochs": "compression",
}


def section(pipeline: Pipeline = PIPELINE) -> str:
    """The chart and the table between their marks."""
    chart = ["```mermaid", "flowchart TD", *_arrows(pipeline), "```"]
    header = [
        "| stage | reads the outputs of | facts of the night | settings |",
        "|---|---|---|---|",
    ]
    rows = [_row(pipeline, step) for step in pipeline.steps]
    return "\n".join([BEGIN, *chart, "", *header, *rows, END])


def _arrows(pipeline: Pipeline) -> Iterator[str]:
    """An arrow from each stage to those that read its output, unless a longer path leads there."""
    above: dict[str, set[str]] = {}
    for step in pipeline.steps:
        name = step.stage.name
        direct = {stage.name for stage in pipeline.inputs(step.stage)}
        beyond = {farther for near in direct for farther in above[near]}
        above[name] = direct | beyond
        sources = [stage for stage in pipeline.inputs(step.stage) if stage.name not in beyond]
        yield from (f"    {source.name} -->|{source.output}| {name}" for source in sources)


def _row(pipeline: Pipeline, step: Step) -> str:
    inputs = ", ".join(stage.name for stage in pipeline.inputs(step.stage))
    facts = ", ".join(name for name in step.stage.parameters if name in FACTS)
    settings = ", ".join(f"`{_setting(path)}`" for path in step.settings.values())
    return f"| {step.stage.name} | {inputs or '–'} | {facts or '–'} | {settings or '–'} |"


def _setting(path: str) -> str:
    """The setting that a name stands for, where it is a property of the configuration."""
    first, *rest = path.split(".")
    return ".".join([_PROPERTIES.get(first, first), *rest])


def main() -> None:
    """Rewrite the section."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(before + section() + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
