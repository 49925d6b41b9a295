"""Promote: move the champion's alias to the night's version if the gate passed it."""

from pathlib import Path

from recsys_core.artifacts import Artifact
from recsys_core.evaluation.results import Verdict
from tasks.contracts.registry import AuditEntry, Promotion, Registered, audit_entries, audit_path
from tasks.engine.stage import StageRun, Summary, stage
from tasks.registry.store import CHAMPION, Registry, RegistryConfig

_DESCRIPTION_LIMIT = 5000
"""Longest tag value that MLflow takes."""


@stage(output="promoted", version=1, libraries=())
def promote(
    run: StageRun,
    config: RegistryConfig,
    *,
    champion: int | None,
    registered: Artifact,
    verdict: Artifact,
) -> Summary:
    """Carry out the gate's verdict, write the audit entry and `promotion.json`.

    The audit entry is written first and never changed, so a repeated attempt follows the first
    decision. The alias does not move again if another version has become champion since.

    Args:
        run: The workspace, the output's folder and key.
        config: Where the registry is.
        champion: Version of the champion that the student was compared with; None: there was none.
        registered: `registered.json`.
        verdict: `verdict.json`.
    """
    registry = Registry(run.workspace, config)
    student = Registered.load(registered)
    entry = _audit_entry(run, registry, student, champion, Verdict.load(verdict))
    champion_now = registry.version_of(student.name, CHAMPION)
    if entry.decision == "promoted" and champion_now == entry.champion_before:
        registry.set_alias(student.name, CHAMPION, student.version)
        champion_now = student.version
    registry.tag_version(
        student.name,
        student.version,
        {"decision": entry.decision, "decision.reason": entry.sentence[:_DESCRIPTION_LIMIT]},
    )
    promotion = Promotion(
        name=student.name,
        version=student.version,
        decision=entry.decision,
        champion=champion_now,
        previous_champion=previous_champion(run.workspace, student.name, champion_now),
    )
    promotion.save(run.out)
    return promotion.model_dump()


def _audit_entry(
    run: StageRun, registry: Registry, student: Registered, compared: int | None, verdict: Verdict
) -> AuditEntry:
    """The decision of the first attempt, which this one makes and writes if there was none."""
    path = audit_path(run.workspace, student.name, student.version, run.key)
    if path.exists():
        return AuditEntry.load(path)
    champion = registry.version_of(student.name, CHAMPION)
    passed, sentence = verdict.passed, verdict.sentence
    if champion not in (compared, student.version):
        passed, sentence = False, _other_champion(compared, champion)
    entry = AuditEntry(
        name=student.name,
        version=student.version,
        decision="promoted" if passed else "refused",
        champion_before=champion,
        passed=passed,
        sentence=sentence,
        rules=verdict.rules,
    )
    entry.save(path)
    return entry


def _other_champion(compared: int | None, champion: int | None) -> str:
    return (
        f"The champion changed since this night began (from version {compared} to {champion}), so "
        "the student was never compared with it."
    )


def previous_champion(workspace: Path, name: str, champion: int | None) -> int | None:
    """The version that was champion before, by the audit trail; None if there was none.

    Args:
        workspace: Folder of everything that nights write.
        name: The registered model's name.
        champion: The champion whose predecessor is wanted.
    """
    if champion is None:
        return None
    before = [
        entry.champion_before
        for entry in audit_entries(workspace, name, champion)
        if entry.decision == "promoted" and entry.champion_before != champion
    ]
    return before[-1] if before else None
