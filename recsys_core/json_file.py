"""Typed JSON files: what one stage writes and another reads."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys_core.artifacts import Artifact, read_json, write_json


class JsonFile(BaseModel):
    """The content of a JSON file of a fixed name in a stage's output.

    A subclass lists the fields and sets `file_name`:

        >>> from tempfile import mkdtemp
        >>> class Totals(JsonFile):
        ...     file_name = "totals.json"
        ...     n_users: int
        >>> folder = Path(mkdtemp())
        >>> Totals(n_users=3).save(folder)
        >>> Totals.load(folder).n_users
        3
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file_name: ClassVar[str]

    @classmethod
    def load(cls, source: Artifact | Path) -> Self:
        """Read the file of a stage's output, or of a folder.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no JSON, or lacks a field; the message names file and field.
        """
        folder = source.folder if isinstance(source, Artifact) else source
        path = (
            source.file(cls.file_name) if isinstance(source, Artifact) else folder / cls.file_name
        )
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            msg = (
                f"{path}: {field}: {first['msg']}. Another version wrote it, or it was edited. "
                f"Delete {folder} and run the night again."
            )
            raise ValueError(msg) from error

    @classmethod
    def of_earlier(cls, folder: Path) -> Self | None:
        """The file of another night's output; None if there is none or another version wrote it."""
        try:
            return cls.load(folder)
        except (FileNotFoundError, ValueError):
            return None

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(folder / self.file_name, self.model_dump(mode="json"))
