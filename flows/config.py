"""The configuration of a night: the settings of all stages, loaded from a TOML file."""

import tomllib
from collections.abc import Iterator
from datetime import date
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from recsys_core.compression.quantization import MIN_BLOCK
from recsys_core.data.sources.config import ItemColumns, SourceConfig
from recsys_core.evaluation.gate_config import GateConfig
from recsys_core.models.recommender import ModelConfig, check_network
from recsys_core.settings import Settings
from recsys_core.synthetic.modalities import MODALITIES
from recsys_core.synthetic.world import WorldConfig
from recsys_core.training.loop import TrainingConfig
from tasks.chores.retention import RetentionConfig
from tasks.contracts.family import MAIN
from tasks.contracts.recipe import Recipe
from tasks.registry.store import RegistryConfig
from tasks.stages.check_teacher import TeacherCheckConfig
from tasks.stages.choose_recipe import RecipeConfig
from tasks.stages.compress import CompressionConfig
from tasks.stages.distill import DistillationConfig
from tasks.stages.evaluate import EvaluationConfig
from tasks.stages.prepare import PrepareConfig
from tasks.stages.validate import ValidationConfig
from tasks.stages.write_soft_labels import SoftLabelConfig
from tasks.training.student import StudentConfig
from tasks.training.teacher import TeacherConfig


class ConfigError(ValueError):
    """A configuration file can't be used; the message says which field, why and what to do."""


class SyntheticSource(Settings):
    """A synthetic world as the source. Each night adds the day before it."""

    folder: Path = Field(default=Path("data/synthetic"), description="Folder for the world's files")
    days: int = Field(
        default=30, ge=3, le=3650, description="Days of history that a new world begins with"
    )
    world: WorldConfig = Field(default=WorldConfig(), description="The world's size and parameters")

    def source(self) -> SourceConfig:
        """The source settings that read the world's files."""
        return SourceConfig(
            format="parquet",
            interactions=self.folder / "interactions",
            items=self.folder / "items.parquet",
            item_columns=ItemColumns(embeddings=MODALITIES if self.world.modalities else ()),
        )


class NightlyConfig(Settings):
    """All settings of a night; the defaults make one on a synthetic world."""

    name: str = Field(
        default="recdistill",
        pattern=r"^[a-z][a-z0-9-]*$",
        max_length=64,
        description="Prefix of registered model names, for example one per market",
    )
    workspace: Path = Field(
        default=Path("workspace"), description="Folder for everything that nights write"
    )
    run_date: date | None = Field(
        default=None,
        description="Fixed date of all nights, for data that has ended; empty: the scheduled date",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Device for training; auto uses a GPU if there is one"
    )
    source: SourceConfig | None = Field(
        default=None, description="Files with the events; empty: the synthetic world"
    )
    synthetic: SyntheticSource = Field(
        default=SyntheticSource(), description="The synthetic world, used without a source"
    )
    validation: ValidationConfig = Field(
        default=ValidationConfig(), description="Expectations of new data"
    )
    prepare: PrepareConfig = Field(
        default=PrepareConfig(), description="Histories, filters and the split in time"
    )
    recipe: RecipeConfig = Field(
        default=RecipeConfig(), description="Whether the log decides sizes and training"
    )
    teacher: TeacherConfig = Field(
        default=TeacherConfig(
            model=ModelConfig(max_length=64),
            training=TrainingConfig(
                epochs=10, batch_size=32, learning_rate=3e-3, validate_every=2, patience=2
            ),
        ),
        description="The large network, or several",
    )
    teacher_check: TeacherCheckConfig = Field(
        default=TeacherCheckConfig(),
        description="Checks that the teacher must pass before it is used",
    )
    soft_labels: SoftLabelConfig = Field(
        default=SoftLabelConfig(), description="Which positions the teacher labels"
    )
    student: StudentConfig = Field(
        default=StudentConfig(
            model=ModelConfig(embedding_dim=32, n_layers=1, ffn_dim=64, max_length=64),
            training=TrainingConfig(
                epochs=8, batch_size=32, learning_rate=3e-3, validate_every=2, patience=2
            ),
        ),
        description="The small network, or several, and the control of the one that ships",
    )
    distillation: DistillationConfig = Field(
        default=DistillationConfig(), description="How the student is initialised and distilled"
    )
    compression: CompressionConfig = Field(
        default=CompressionConfig(), description="How the student is compressed"
    )
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="How all models are evaluated"
    )
    gate: GateConfig = Field(
        default=GateConfig(), description="Rules that a new champion must meet"
    )
    registry: RegistryConfig = Field(
        default=RegistryConfig(), description="Where models are registered"
    )

    retention: RetentionConfig = Field(
        default=RetentionConfig(), description="How long the workspace keeps its files"
    )

    @model_validator(mode="after")
    def _student_that_can_be_served(self) -> Self:
        if self.student.model.reads_context:
            msg = (
                "student.model.event_kinds and time_gaps must be false: the served student is "
                "asked with item ids alone. They are for the teacher"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _labels_of_an_external_teacher(self) -> Self:
        if self.teacher.is_external and self.soft_labels.store is None:
            msg = (
                "teacher.source is 'external', but soft_labels.store names no labels; name the "
                "folder that `recdistill soft-labels import` writes, or set teacher.source to "
                "'trained'"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _losses_that_a_store_can_feed(self) -> Self:
        if self.soft_labels.store is None:
            return self
        wanted = self.distillation
        for name in ("ranking_weight", "closure_weight", "hidden_weight"):
            if weight := getattr(wanted, name):
                msg = (
                    f"distillation.{name} is {weight:g}, but soft_labels.store holds lists of "
                    "items, and this loss needs the teacher's states; set it to 0"
                )
                raise ValueError(msg)
        if wanted.divergence != "forward_kl":
            msg = (
                f"distillation.divergence is {wanted.divergence!r}, but soft_labels.store holds "
                "lists of items, and the other divergences need a score for every item; set it to "
                "'forward_kl'"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _students_that_can_be_quantized(self) -> Self:
        for table, model in self._student_models():
            if model.embedding_dim % MIN_BLOCK:
                msg = (
                    f"{table}.embedding_dim is {model.embedding_dim}; it must be a multiple of "
                    f"{MIN_BLOCK}, the block that the int8 item table is made of"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _students_that_the_teacher_can_initialise(self) -> Self:
        if self.distillation.initialise != "teacher" or self.teacher.is_external:
            return self
        teacher_width = sum(member.model.embedding_dim for member in self.teacher.members())
        for table, model in self._student_models():
            if model.embedding_dim > teacher_width:
                msg = (
                    f"{table}.embedding_dim is {model.embedding_dim}, wider than the teacher's "
                    f"{teacher_width}; make it smaller, or set "
                    "distillation.initialise to 'random'"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _students_that_can_be_built(self) -> Self:
        for table, model in self._student_models():
            try:
                check_network(model)
            except ValueError as error:
                msg = f"{table}: {error}"
                raise ValueError(msg) from error
        return self

    def _student_models(self) -> Iterator[tuple[str, ModelConfig]]:
        """Each student's network, and the table that sets it."""
        for name, member in self.student.members().items():
            yield "student.model" if name == MAIN else f"student.sizes.{name}", member.model

    @model_validator(mode="after")
    def _student_whose_windows_the_teacher_reads(self) -> Self:
        longest = self.student.model.max_length
        teacher = min(member.model.max_length for member in self.teacher.members())
        if longest > teacher and not self.teacher.is_external:
            msg = (
                f"student.model.max_length is {longest}, longer than the teacher's {teacher}; the "
                "teacher labels the windows that the student reads, so make it no larger"
            )
            raise ValueError(msg)
        return self

    def keeping_changes(self) -> Self:
        """The recipe leaves what differs from the defaults: a file, a form or code has set it."""
        mine, defaults = (dict(_leaves(config.model_dump())) for config in (self, NightlyConfig()))
        changed = (name for name, value in mine.items() if defaults.get(name) != value)
        keep = tuple(sorted({*self.recipe.keep, *changed}))
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"keep": keep})})

    def with_recipe(self, recipe: Recipe) -> Self:
        """The configuration with the settings that the log decided.

        Raises:
            ConfigError: They contradict settings that were kept.
        """
        fields = self.model_dump()
        for choice in recipe.choices:
            for name, value in choice.settings.items():
                *tables, key = name.split(".")
                table = reduce(getitem, tables, fields)
                table[key] = value
        if not self.teacher.is_external:
            _fit_student(fields, {name for choice in recipe.choices for name in choice.settings})
        try:
            return type(self).model_validate(fields)
        except ValidationError as error:
            problems = "; ".join(problem["msg"] for problem in error.errors())
            msg = (
                f"The settings that the recipe chose don't fit those of the configuration: "
                f"{problems}. Leave those out, add the others to recipe.keep, or set recipe.mode "
                "to 'manual'."
            )
            raise ConfigError(msg) from error

    @property
    def events(self) -> SourceConfig:
        """The source that is read: the configured one or the synthetic world's files."""
        return self.source or self.synthetic.source()

    @property
    def max_shipped_bytes(self) -> float | None:
        """The size that the gate allows what ships, in bytes; None: any."""
        rules = [
            rule
            for rule in self.gate.rules
            if rule.model == "compressed" and rule.metric == "size_bytes"
        ]
        return min((rule.at_most for rule in rules if rule.at_most is not None), default=None)

    @property
    def recovery_epochs(self) -> int:
        """Epochs of the student's recovery after pruning; 0: nothing is pruned."""
        return self.compression.recovery_epochs(self.student.model.ffn_dim)


def load_config(path: Path, *, data: Path | None = None) -> NightlyConfig:
    """Read a TOML file; settings that it lacks are those of `NightlyConfig()`.

    Paths in it are relative to where the command runs.

    Args:
        path: The file.
        data: Replaces `{data}` in the source's paths, so that one file serves wherever the data
            lie; `data` in the file itself is the default.

    Raises:
        ConfigError: The file is missing, is not TOML, or a field is unknown or out of bounds.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"There is no configuration file {path}. Examples: infra/configs in the source code."
        raise ConfigError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        msg = f"{path} can't be read as TOML: {error}."
        raise ConfigError(msg) from error
    default_data = fields.pop("data", None)
    if isinstance(source := fields.get("source"), dict):
        _fill_in(source, path, str(data) if data else default_data)
    merged = _merged(NightlyConfig().model_dump(), fields)
    if isinstance(merged["recipe"], dict):
        named = sorted(name for name, _ in _leaves(fields))
        merged["recipe"]["keep"] = [*merged["recipe"].get("keep", ()), *named]
    try:
        return NightlyConfig.model_validate(merged)
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors()
        )
        msg = f"{path} has settings that can't be used:\n{problems}"
        raise ConfigError(msg) from error


def _merged(defaults: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The defaults, replaced by the settings of the file, table by table."""
    merged = dict(defaults)
    for name, value in fields.items():
        default = defaults.get(name)
        if isinstance(default, dict) and isinstance(value, dict):
            merged[name] = _merged(default, value)
        else:
            merged[name] = value
    return merged


def _fit_student(fields: dict[str, Any], chosen: set[str]) -> None:
    """Fit chosen sizes to those that the configuration keeps: no student exceeds its teacher."""
    teacher, student = fields["teacher"]["model"], fields["student"]["model"]
    if "teacher.model.max_length" in chosen:
        teacher["max_length"] = max(teacher["max_length"], student["max_length"])
    for size in ("max_length", "embedding_dim"):
        if f"student.model.{size}" in chosen:
            student[size] = min(student[size], teacher[size])


def _leaves(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of teacher and student with their dotted names."""
    for name, value in fields.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{dotted}.")
        elif dotted.startswith(("teacher.", "student.")):
            yield dotted, value


def _fill_in(source: dict[str, Any], path: Path, data: str | None) -> None:
    for name in ("interactions", "items"):
        value = source.get(name)
        if isinstance(value, str) and "{data}" in value:
            if data is None:
                msg = f"{path}: source.{name} needs a data folder; give --data or set data there."
                raise ConfigError(msg)
            source[name] = value.replace("{data}", data)
