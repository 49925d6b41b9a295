"""The night as data: its stages in order, and which settings each of them gets.

A stage's other parameters have the name of an earlier stage's output or of a fact of the night, so
this list is the only place that defines how stages are connected. `recdistill nightly --plan`, the
chart in docs/architecture.md and the tests of kills read it too.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from flows.config import NightlyConfig
from recsys_core.artifacts import Artifact, is_finished
from tasks.contracts.family import Family
from tasks.contracts.recipe import Recipe
from tasks.engine.night import Night
from tasks.engine.stage import Decision, Stage
from tasks.stages.check_teacher import check_teacher
from tasks.stages.choose_recipe import choose_recipe
from tasks.stages.compress import compress
from tasks.stages.control import control
from tasks.stages.distill import distill
from tasks.stages.evaluate import evaluate
from tasks.stages.gate import gate
from tasks.stages.ingest import ingest
from tasks.stages.plan_teacher import plan_teacher
from tasks.stages.prepare import prepare
from tasks.stages.promote import promote
from tasks.stages.register import register
from tasks.stages.report import report
from tasks.stages.train_teacher import train_teacher
from tasks.stages.validate import validate
from tasks.stages.write_soft_labels import write_soft_labels

FACTS = ("name", "run_date", "champion", "sources", "read_again", "label_store")
"""Attributes of `Night` that a stage may have as a parameter, and so in its key."""


Adjust = Callable[[NightlyConfig, Artifact], NightlyConfig]
Condition = Callable[[NightlyConfig], bool]


class WiringError(TypeError):
    """A parameter of a stage has no source, or a setting has no parameter."""


class Step:
    """A stage and its settings.

    Args:
        stage: The stage.
        adjust: The configuration of the stages that follow, from that of the stage and its output.
        unless: Nights that leave the stage out: later stages get None as its output.
        undecided: The earlier stage whose `adjust` has yet to decide the settings, or None.
        settings: Parameter of the stage → dotted name in `NightlyConfig`.
    """

    def __init__(
        self,
        stage: Stage,
        adjust: Adjust | None = None,
        *,
        unless: Condition | None = None,
        undecided: Callable[[NightlyConfig], Stage | None] | None = None,
        **settings: str,
    ) -> None:
        self.stage = stage
        self.adjust = adjust
        self.unless = unless
        self.undecided = undecided
        self.settings: Mapping[str, str] = settings


@dataclass(frozen=True)
class Outcome:
    """The decision about each stage of a night, in order.

    Attributes:
        decisions: Decision of each stage up to the last one that was asked for, without those that
            the night leaves out.
    """

    decisions: Mapping[Stage, Decision]

    def __getitem__(self, stage: Stage) -> Artifact:
        return self.decisions[stage].artifact

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions.values())


class Pipeline:
    """Stages in order, checked when it is made.

    Args:
        steps: Each may use the outputs of those before it.

    Raises:
        WiringError: A parameter of a stage has no source, a setting has no parameter, or a stage
            needs an output that some nights lack.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        outputs: dict[str, Condition | None] = {}
        for step in steps:
            _check(step, outputs)
            outputs[step.stage.output] = step.unless

    def inputs(self, stage: Stage) -> list[Stage]:
        """The stages whose outputs a stage reads."""
        return [step.stage for step in self.steps if step.stage.output in stage.artifacts]

    def run(self, night: Night, config: NightlyConfig, *, through: Stage | None = None) -> Outcome:
        """Run the stages whose output is missing.

        Args:
            night: The facts of the night.
            config: All settings.
            through: The last stage; None for all.
        """
        return self._walk(night, config, through, carry_out=True)

    def plan(self, night: Night, config: NightlyConfig, *, through: Stage | None = None) -> Outcome:
        """Decide which stages `run` would run, and why, without running them."""
        return self._walk(night, config, through, carry_out=False)

    def _walk(
        self, night: Night, config: NightlyConfig, through: Stage | None, *, carry_out: bool
    ) -> Outcome:
        config = config.keeping_changes()
        known: dict[str, Any] = {fact: getattr(night, fact) for fact in FACTS}
        decisions: dict[Stage, Decision] = {}
        for step in self._steps(through):
            stage = step.stage
            if step.unless is not None and step.unless(config):
                known[stage.output] = None
                continue
            settings = {name: attrgetter(path)(config) for name, path in step.settings.items()}
            inputs = {name: known[name] for name in stage.parameters if name not in settings}
            arguments = settings | inputs
            decisions[stage] = stage.decide(night, arguments)
            earlier = None if step.undecided is None else step.undecided(config)
            if earlier is not None and decisions[stage].runs:
                reason = f"its settings depend on {earlier.name}"
                decisions[stage] = replace(decisions[stage], reason=reason)
            if carry_out:
                stage.carry_out(decisions[stage], night, arguments)
            artifact = decisions[stage].artifact
            known[stage.output] = artifact
            if step.adjust is not None and is_finished(artifact.folder):
                config = step.adjust(config, artifact)
        return Outcome(decisions)

    def _steps(self, through: Stage | None) -> Iterator[Step]:
        for step in self.steps:
            yield step
            if step.stage is through:
                return


def _check(step: Step, outputs: Mapping[str, Condition | None]) -> None:
    parameters = step.stage.parameters
    if unknown := sorted(set(step.settings) - set(parameters)):
        msg = f"{step.stage.name} has no parameter {unknown[0]!r}, which its step gives a setting."
        raise WiringError(msg)
    for name, parameter in parameters.items():
        known = set(outputs) if name in step.stage.artifacts else {*step.settings, *FACTS}
        if name not in known and parameter.default is inspect.Parameter.empty:
            msg = (
                f"{step.stage.name} has the parameter {name!r}, which is no output of an earlier "
                f"stage, no fact of the night and no setting. Known: {', '.join(sorted(known))}."
            )
            raise WiringError(msg)
        left_out = outputs.get(name)
        if left_out not in (None, step.unless) and parameter.annotation is Artifact:
            msg = (
                f"{step.stage.name} needs the output {name!r}, which some nights leave out. Its "
                "parameter must be `Artifact | None`, or its step have the same `unless`."
            )
            raise WiringError(msg)


def _has_external_teacher(config: NightlyConfig) -> bool:
    return config.teacher.is_external


def _with_recipe(config: NightlyConfig, recipe: Artifact) -> NightlyConfig:
    return config.with_recipe(Recipe.load(recipe))


def _with_shipped_size(config: NightlyConfig, compressed: Artifact) -> NightlyConfig:
    """The control is as large as the student that ships."""
    shipped = config.student.alone(Family.load(compressed).shipped)
    return config.model_copy(update={"student": shipped})


def _which_student_ships(config: NightlyConfig) -> Stage | None:
    """Until students are compressed, the control's size is open."""
    return compress if config.student.sizes else None


PIPELINE = Pipeline(
    Step(ingest, config="events"),
    Step(validate, config="validation"),
    Step(prepare, config="prepare", timezone="events.timezone"),
    Step(choose_recipe, _with_recipe, config="recipe", teacher_source="teacher.source"),
    Step(plan_teacher, unless=_has_external_teacher, config="teacher"),
    Step(train_teacher, unless=_has_external_teacher, config="teacher"),
    Step(check_teacher, unless=_has_external_teacher, config="teacher_check", registry="registry"),
    Step(
        write_soft_labels,
        config="soft_labels",
        max_length="student.model.max_length",
        loss="student.training.loss",
    ),
    Step(distill, config="distillation", student="student"),
    Step(
        compress,
        _with_shipped_size,
        config="compression",
        distillation="distillation",
        recency_prior="student.recency_prior",
        training="student.training",
        max_bytes="max_shipped_bytes",
    ),
    Step(
        control,
        undecided=_which_student_ships,
        config="student",
        recovery_epochs="recovery_epochs",
    ),
    Step(evaluate, config="evaluation", registry="registry"),
    Step(register, config="registry"),
    Step(gate, config="gate"),
    Step(promote, config="registry"),
    Step(report, trust="distillation.trust"),
)
