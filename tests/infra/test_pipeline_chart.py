"""The document shows the pipeline as it is declared."""

import re
from pathlib import Path

from flows.pipeline import PIPELINE, Pipeline, Step
from infra.pipeline_chart import DOCUMENT, section
from recsys_core.artifacts import Artifact
from tasks.engine.stage import StageRun, Summary, stage


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert section() in text, "run `python -m infra.pipeline_chart`"


def test_the_table_of_files_names_every_stage_in_order() -> None:
    rest = DOCUMENT.read_text(encoding="utf-8").split("| stage | what it does | files |")[1]
    table = rest.split("\n\n")[0]
    named = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)
    assert named == [step.stage.name for step in PIPELINE.steps]


def test_needless_arrows_are_left_out() -> None:
    @stage(output="rows", version=1)
    def read(run: StageRun) -> Summary: ...

    @stage(output="sums", version=1)
    def add(run: StageRun, *, rows: Artifact) -> Summary: ...

    @stage(output="page", version=1)
    def show(run: StageRun, *, rows: Artifact, sums: Artifact, workspace: Path) -> Summary: ...

    shown = section(Pipeline(Step(read), Step(add), Step(show, workspace="workspace")))
    arrows = [line.strip() for line in shown.splitlines() if "-->|" in line]
    assert arrows == ["read -->|rows| add", "add -->|sums| show"]
    assert "| show | read, add | – | `workspace` |" in shown
