"""The pipeline's wiring: mistakes are refused where it is declared, and a plan runs nothing."""

from dataclasses import replace

import pytest

from flows.config import NightlyConfig
from flows.pipeline import PIPELINE, Pipeline, Step, WiringError
from recsys_core.artifacts import Artifact
from recsys_core.settings import Settings
from tasks.engine.night import Night
from tasks.engine.stage import StageRun, Summary, stage
from tasks.stages.control import control
from tasks.stages.evaluate import evaluate
from tasks.stages.gate import gate
from tasks.stages.prepare import prepare
from tasks.stages.report import report


@stage(output="rows", version=1)
def read(run: StageRun, config: Settings, *, name: str) -> Summary:
    """A stage with settings and a fact of the night."""
    return {"name": name}


@stage(output="sums", version=1)
def add(run: StageRun, *, rows: Artifact) -> Summary:
    """A stage with an input."""
    return {}


def test_an_input_that_no_earlier_stage_makes_is_refused() -> None:
    with pytest.raises(
        WiringError, match="parameter 'rows', which is no output of an earlier stage"
    ):
        Pipeline(Step(add), Step(read, config="source"))


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(WiringError, match="add has no parameter 'timezone'"):
        Pipeline(Step(read, config="source"), Step(add, timezone="events.timezone"))


def test_a_parameter_that_nobody_gives_is_refused() -> None:
    with pytest.raises(WiringError, match="read has the parameter 'config'"):
        Pipeline(Step(read))


@stage(output="mean", version=1)
def divide(run: StageRun, *, sums: Artifact | None) -> Summary:
    """A stage that can do without its input."""
    return {}


def _always(config: NightlyConfig) -> bool:
    return True


def test_a_stage_can_be_left_out(night: Night) -> None:
    pipeline = Pipeline(Step(read, config="recipe"), Step(add, unless=_always), Step(divide))
    config = NightlyConfig(workspace=night.workspace)
    decisions = list(pipeline.plan(night, config))
    assert [decision.stage for decision in decisions] == ["read", "divide"]
    assert decisions[1].parts["inputs"] == {"sums": None}
    assert pipeline.inputs(divide) == [add]
    assert [one.stage for one in pipeline.plan(night, config, through=add)] == ["read"]


def test_a_stage_that_needs_what_may_be_left_out_is_refused() -> None:
    @stage(output="needy", version=1)
    def need(run: StageRun, *, sums: Artifact) -> Summary: ...

    steps = Step(read, config="recipe"), Step(add, unless=_always)
    with pytest.raises(WiringError, match="need needs the output 'sums', which some nights leave"):
        Pipeline(*steps, Step(need))
    Pipeline(*steps, Step(need, unless=_always))


def test_a_night_with_an_external_teacher_trains_none(night: Night) -> None:
    external = {"teacher": {"source": "external"}, "soft_labels": {"store": "labels"}}
    config = NightlyConfig.model_validate({"workspace": night.workspace, **external})
    planned = [decision.stage for decision in PIPELINE.plan(night, config)]
    others = [step.stage.name for step in PIPELINE.steps if "_teacher" not in step.stage.name]
    assert planned == others


def test_inputs_are_found_by_name() -> None:
    assert PIPELINE.inputs(gate) == [evaluate]
    others = [step.stage for step in PIPELINE.steps if step.stage is not report]
    assert PIPELINE.inputs(report) == others


def test_outputs_have_names_of_their_own() -> None:
    outputs = [step.stage.output for step in PIPELINE.steps]
    assert len(set(outputs)) == len(outputs)


def test_a_plan_runs_nothing_and_stops_where_it_is_told(night: Night) -> None:
    config = NightlyConfig(workspace=night.workspace)
    outcome = PIPELINE.plan(night, config, through=prepare)
    decisions = list(outcome)
    assert [decision.stage for decision in decisions] == ["ingest", "validate", "prepare"]
    assert all(decision.runs for decision in decisions)
    assert not (night.workspace / "stages").exists()


def test_the_plan_says_that_the_control_waits_for_the_student_that_ships(night: Night) -> None:
    alone = NightlyConfig(workspace=night.workspace)
    fields = alone.model_dump()
    fields["student"]["sizes"] = {"S": {"encoder": "gru"}}
    family = NightlyConfig.model_validate(fields)
    reasons = [PIPELINE.plan(night, config).decisions[control].reason for config in (alone, family)]
    assert reasons == ["never finished", "its settings depend on compress"]


def test_facts_of_the_night_are_part_of_the_keys_that_use_them(
    night: Night,
) -> None:
    config = NightlyConfig(workspace=night.workspace)
    before = PIPELINE.plan(night, config)
    after = PIPELINE.plan(replace(night, champion=7), config)
    changed = [a.stage for a, b in zip(before, after, strict=True) if a.artifact != b.artifact]
    assert changed == ["evaluate", "register", "gate", "promote", "report"]
