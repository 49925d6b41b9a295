"""`family.json`: the compressed students of a night, and which of them ships."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recsys_core.json_file import JsonFile

MAIN = "main"
"""Name of the student that `[student]` itself describes."""

_SIZES = "sizes"
"""Folder of the students that do not lie in an output's folder itself."""


class FamilyMember(BaseModel):
    """A compressed student.

    Attributes:
        name: Its name in `student.sizes`, or "main".
        size_bytes: Bytes of all that serving needs.
        ndcg_at_10: Of what is served, on validation events.
        low: Lower bound of its difference from the best student that may ship; 0 for the best.
        fits: Whether the gate allows its size.
        is_good_enough: Whether it may ship and ranks nearly as well as the best.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size_bytes: int
    ndcg_at_10: float
    low: float
    fits: bool
    is_good_enough: bool


class Family(JsonFile):
    """All students of a night, the main one first.

    Attributes:
        members: The students.
        shipped: Name of the smallest that is good enough. Its served files lie in the output's
            folder, those of the others in `sizes/NAME`.
    """

    file_name = "family.json"

    members: tuple[FamilyMember, ...]
    shipped: str

    @property
    def others(self) -> list[str]:
        """The students that don't ship."""
        return [member.name for member in self.members if member.name != self.shipped]

    def served_folder(self, output: Path, name: str) -> Path:
        """Where the served files of a student lie."""
        return output if name == self.shipped else output / _SIZES / name


def size_folder(folder: Path, name: str) -> Path:
    """Where a student's files lie in a folder: the main one's in it, another's in `sizes/NAME`."""
    return folder if name == MAIN else folder / _SIZES / name


def size_names(folder: Path) -> list[str]:
    """The students whose files lie in a folder, the main one first."""
    return [MAIN, *sorted(path.name for path in (folder / _SIZES).glob("*"))]
