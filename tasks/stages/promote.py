"""Promote: the champion's alias moves to the night's version, if the gate lets it pass."""

from pathlib import Path
from typing import Any

from recsys_core.artifacts import Artifact, read_json, write_json
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
    """Carry out the gate's verdict, keep it in the audit trail, write `promotion.json`.

    The audit entry is written first and never changed: a repeated attempt finds what the first one
    decided. It does not move the alias again once another version has become champion since.

    Args:
        run: Where and how.
        config: Where the registry is.
        champion: Version of the champion that the student was compared with, None for none.
        registered: `registered.json`.
        verdict: `verdict.json`.
    """
    registry = Registry(run.workspace, config)
    facts = read_json(registered.file("registered.json"))
    decided = read_json(verdict.file("verdict.json"))
    name, version = facts["name"], facts["version"]
    champion_now = registry.version_of(name, CHAMPION)
    path = run.workspace / "audit" / f"{name}-{version:06d}-{run.key}.json"
    if not path.exists():
        if champion_now not in (champion, version):
            decided |= {"passed": False, "sentence": _overtaken(champion, champion_now)}
        entry = {
            "name": name,
            "version": version,
            "decision": "promoted" if decided["passed"] else "refused",
            "champion_before": champion_now,
            **decided,
        }
        write_json(path, entry)
    entry = read_json(path)
    if entry["decision"] == "promoted" and champion_now == entry["champion_before"]:
        registry.set_alias(name, CHAMPION, version)
        champion_now = version
    registry.tag_version(
        name,
        version,
        {
            "decision": entry["decision"],
            "decision.reason": entry["sentence"][:_DESCRIPTION_LIMIT],
        },
    )
    promotion = {
        "name": name,
        "version": version,
        "decision": entry["decision"],
        "champion": champion_now,
        "previous_champion": previous_champion(run.workspace, name, champion_now),
    }
    write_json(run.out / "promotion.json", promotion)
    return promotion


def _overtaken(compared: int | None, champion: int | None) -> str:
    return (
        f"The champion changed since this night began (from version {compared} to {champion}), so "
        "the student was never compared with it."
    )


def previous_champion(workspace: Path, name: str, champion: int | None) -> int | None:
    """The version that was champion before, by the audit trail; None if there was none.

    Args:
        workspace: Folder of everything that nights write.
        name: The registered model's name.
        champion: The champion that it was before.
    """
    if champion is None:
        return None
    entries: list[dict[str, Any]] = [
        read_json(path)
        for path in sorted((workspace / "audit").glob(f"{name}-{champion:06d}-*.json"))
    ]
    before = [
        entry["champion_before"]
        for entry in entries
        if entry["decision"] == "promoted" and entry["champion_before"] != champion
    ]
    return before[-1] if before else None
