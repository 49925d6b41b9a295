import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_core.artifacts import Artifact, read_json
from recsys_core.evaluation.results import RuleResult, Verdict
from tasks.contracts.registry import AuditEntry, Registered
from tasks.engine.night import Night
from tasks.engine.stage import StageRun
from tasks.registry.store import CHAMPION, Registry, RegistryConfig
from tasks.stages.promote import previous_champion, promote

NAME = "test-student"
Promote = Callable[..., dict[str, Any]]


@pytest.fixture
def registry(registry: Registry, tmp_path: Path) -> Registry:
    """With versions 1 to 3."""
    registry.client.create_registered_model(NAME)
    for _ in range(3):
        registry.client.create_model_version(NAME, source=tmp_path.as_uri())
    return registry


@pytest.fixture
def promote_version(
    night: Night, registry: Registry, make_run: Callable[[str], StageRun], tmp_path: Path
) -> Promote:
    """Run the stage's body for a version with a verdict; equal arguments are a repeated attempt.

    The night began with the champion of now, unless `begun_with` says otherwise.
    """

    def run(
        version: int, *, passed: bool = True, key: str = "", begun_with: int | None = None
    ) -> dict[str, Any]:
        champion = begun_with or registry.version_of(NAME, CHAMPION)
        folder = tmp_path / f"inputs-{version}-{passed}-{key}"
        Registered(name=NAME, version=version, run_id="r", tracking_uri=registry.uri).save(folder)
        sentence = "All rules hold." if passed else "small: size_bytes is 999, at most 100 allowed."
        Verdict(passed=passed, sentence=sentence, rules=(rule_result(passed),)).save(folder)
        artifact = Artifact("x", "x", folder)
        stage_run = make_run(f"promote-{version}-{passed}-{key}")
        summary = promote.body(
            stage_run, RegistryConfig(), champion=champion, registered=artifact, verdict=artifact
        )
        assert summary == read_json(stage_run.out / "promotion.json")
        shutil.rmtree(stage_run.out)
        return summary

    return run


def rule_result(passed: bool) -> RuleResult:
    return RuleResult(rule="small", outcome="pass" if passed else "fail", sentence="It is small.")


def tags(registry: Registry, version: int) -> dict[str, str]:
    return registry.client.get_model_version(NAME, str(version)).tags


def test_a_passed_gate_moves_the_champion(
    night: Night, registry: Registry, promote_version: Promote
) -> None:
    first = promote_version(1)
    assert first == {
        "name": NAME,
        "version": 1,
        "decision": "promoted",
        "champion": 1,
        "previous_champion": None,
    }
    assert registry.version_of(NAME, CHAMPION) == 1
    second = promote_version(2)
    assert (second["champion"], second["previous_champion"]) == (2, 1)
    assert registry.version_of(NAME, CHAMPION) == 2
    assert tags(registry, 2)["decision"] == "promoted"
    assert previous_champion(night.workspace, NAME, 2) == 1
    assert previous_champion(night.workspace, NAME, 1) is None
    assert previous_champion(night.workspace, NAME, None) is None


def test_a_failed_gate_promotes_nothing_and_says_why(
    night: Night, registry: Registry, promote_version: Promote
) -> None:
    promote_version(1)
    refused = promote_version(2, passed=False)
    assert refused["decision"] == "refused"
    assert (refused["champion"], refused["previous_champion"]) == (1, None)
    assert registry.version_of(NAME, CHAMPION) == 1
    assert tags(registry, 2)["decision"] == "refused"
    assert "size_bytes is 999, at most 100" in tags(registry, 2)["decision.reason"]
    (path,) = night.workspace.glob("audit/test-student-000002-*.json")
    entry = AuditEntry.load(path)
    assert entry.champion_before == 1
    assert entry.rules == (rule_result(passed=False),)


def test_without_a_champion_a_refusal_leaves_none(
    registry: Registry, promote_version: Promote
) -> None:
    assert promote_version(1, passed=False)["champion"] is None
    assert registry.version_of(NAME, CHAMPION) is None


def test_a_night_that_was_overtaken_does_not_replace_a_champion_it_never_met(
    registry: Registry, promote_version: Promote
) -> None:
    promote_version(1)
    promote_version(3)

    late = promote_version(2, begun_with=1)

    assert (late["decision"], late["champion"]) == ("refused", 3)
    assert registry.version_of(NAME, CHAMPION) == 3
    assert "from version 1 to 3" in tags(registry, 2)["decision.reason"]


def test_a_repeated_attempt_changes_nothing(
    night: Night, registry: Registry, promote_version: Promote
) -> None:
    promote_version(1)
    assert promote_version(2) == promote_version(2)
    assert previous_champion(night.workspace, NAME, 2) == 1
    assert len(list(night.workspace.glob("audit/*.json"))) == 2


def test_a_kill_between_decision_and_alias_is_made_good(
    registry: Registry, promote_version: Promote, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_version(1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Registry, "set_alias", die)
        with pytest.raises(KeyboardInterrupt):
            promote_version(2)
    assert registry.version_of(NAME, CHAMPION) == 1
    repeated = promote_version(2)
    assert (repeated["champion"], repeated["previous_champion"]) == (2, 1)


def test_a_late_repeat_does_not_undo_a_newer_promotion(
    registry: Registry, promote_version: Promote
) -> None:
    promote_version(1)
    promote_version(2)
    promote_version(3)
    assert promote_version(2)["champion"] == 3
    assert registry.version_of(NAME, CHAMPION) == 3


def test_promoting_the_champion_again_keeps_its_predecessor(
    night: Night, registry: Registry, promote_version: Promote
) -> None:
    promote_version(1)
    promote_version(2)
    again = promote_version(2, key="stricter rules")
    assert (again["champion"], again["previous_champion"]) == (2, 1)
    assert previous_champion(night.workspace, NAME, 2) == 1
