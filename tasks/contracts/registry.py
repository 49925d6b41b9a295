"""What happened to the night's model: its version, the decision on it, the audit trail."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from recsys_core.artifacts import read_json, write_json
from recsys_core.evaluation.results import RuleResult
from recsys_core.json_file import JsonFile

PromotionDecision = Literal["promoted", "refused"]


class Registered(JsonFile):
    """A version in the registry.

    Attributes:
        name: The registered model's name.
        version: The version's number.
        run_id: The MLflow run that keeps the files.
        tracking_uri: The registry.
    """

    file_name = "registered.json"

    name: str
    version: int
    run_id: str
    tracking_uri: str


class Promotion(JsonFile):
    """What was decided, and which version is champion now.

    Attributes:
        name: The registered model's name.
        version: The night's version.
        decision: Whether it became champion.
        champion: The champion after the decision; None: there is none.
        previous_champion: The version that it replaced.
    """

    file_name = "promotion.json"

    name: str
    version: int
    decision: PromotionDecision
    champion: int | None
    previous_champion: int | None


class AuditEntry(BaseModel):
    """A decision on a version with its reasons. Its file is never changed.

    The audit trail is kept for ever, so fields of other releases are ignored.

    Attributes:
        name: The registered model's name.
        version: The version that was decided on.
        decision: Whether it became champion.
        champion_before: The champion when it was decided; None: there was none.
        passed: Whether the gate passed the version and no other had become champion since.
        sentence: The reason.
        rules: The results of the gate's rules.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int
    decision: PromotionDecision
    champion_before: int | None
    passed: bool
    sentence: str
    rules: tuple[RuleResult, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an entry."""
        return cls.model_validate(read_json(path))

    def save(self, path: Path) -> None:
        """Write the entry, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))


def audit_path(workspace: Path, name: str, version: int, key: str) -> Path:
    """File of the entry of a promote stage's key."""
    return workspace / "audit" / f"{name}-{version:06d}-{key}.json"


def audit_entries(workspace: Path, name: str, version: int) -> list[AuditEntry]:
    """All decisions on a version, by key."""
    paths = (workspace / "audit").glob(f"{name}-{version:06d}-*.json")
    return [AuditEntry.load(path) for path in sorted(paths)]
