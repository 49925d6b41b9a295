"""The student's settings; several sizes make a family, which learns from one store."""

from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from recsys_core.models.recommender import Encoder
from recsys_core.settings import Settings, part
from tasks.contracts.family import MAIN, size_folder
from tasks.engine.stage import StageRun
from tasks.training.network import NetworkConfig

SizeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=16)]


class StudentSize(Settings):
    """How a student differs from the main one; what is empty is the same.

    The window is always the same: it is that of the soft labels, which all students share.
    """

    encoder: Encoder | None = Field(default=None, description="See student.model.encoder")
    embedding_dim: int | None = Field(default=None, description="See student.model.embedding_dim")
    n_layers: int | None = Field(default=None, description="See student.model.n_layers")
    n_repeats: int | None = Field(default=None, description="See student.model.n_repeats")
    n_heads: int | None = Field(default=None, description="See student.model.n_heads")
    ffn_dim: int | None = Field(default=None, description="See student.model.ffn_dim")
    dropout: float | None = Field(default=None, description="See student.model.dropout")
    epochs: int | None = Field(default=None, description="See student.training.epochs")


class StudentConfig(NetworkConfig):
    """The main student's network and its training; sizes are further students of the same night."""

    sizes: dict[SizeName, StudentSize] = Field(
        default={},
        description="More students by name, as differences from the main one. The smallest that is "
        "good enough ships (compression.max_size_loss)",
    )

    @model_validator(mode="after")
    def _sizes_that_can_be_trained(self) -> Self:
        names = [MAIN, *(name.lower() for name in self.sizes)]
        if len(set(names)) < len(names):
            msg = (
                f"sizes are named {', '.join(self.sizes)}; names must differ in more than case, "
                f"because folders are named after them, and {MAIN!r} is [student] itself"
            )
            raise ValueError(msg)
        for name, size in self.sizes.items():
            try:
                _resized(self.model_dump(include=set(NetworkConfig.model_fields)), size)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                setting = first["loc"][-1]
                msg = f"sizes.{name}.{setting} is {first['input']}. {first['msg']}"
                raise ValueError(msg) from error
        return self

    def members(self) -> dict[str, NetworkConfig]:
        """The settings of each student by name, the main one first."""
        fields = self.model_dump(include=set(NetworkConfig.model_fields))
        main = NetworkConfig.model_validate(fields)
        return {MAIN: main} | {name: _resized(fields, size) for name, size in self.sizes.items()}

    def alone(self, name: str) -> Self:
        """One student's settings, as if there were no others."""
        return type(self).model_validate(self.members()[name].model_dump())


def size_run(run: StageRun, name: str, number: int, n_students: int) -> StageRun:
    """The run of one of several students: its own folders and its part of the progress."""
    out, scratch = (size_folder(folder, name) for folder in (run.out, run.scratch))
    for created in (out, scratch):
        created.mkdir(parents=True, exist_ok=True)
    label = f"{name}, student {number + 1} of {n_students}"
    progress = part(run.progress, number, n_students, label)
    return replace(run, out=out, scratch=scratch, progress=progress)


def _resized(fields: dict[str, Any], size: StudentSize) -> NetworkConfig:
    changes = size.model_dump(exclude_none=True)
    epochs = {"epochs": changes.pop("epochs")} if "epochs" in changes else {}
    return NetworkConfig.model_validate(
        fields | {"model": fields["model"] | changes, "training": fields["training"] | epochs}
    )
