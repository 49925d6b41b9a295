"""The outputs of a made-up night, which the report is rendered from."""

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_core.artifacts import Artifact, digest, publish, write_json
from recsys_core.data.histories.targets import TargetConfig
from recsys_core.data.soft_labels.description import FORMAT_VERSION, SoftLabelDescription
from recsys_core.evaluation.gate import evaluate_rules
from recsys_core.evaluation.gate_config import GateConfig, GateRule
from recsys_core.evaluation.recency_prior import RecencyPrior
from recsys_core.evaluation.results import (
    ChampionNote,
    EvaluationMetrics,
    ModelResult,
    SliceResult,
    Verdict,
)
from recsys_core.evaluation.statistics import summarise
from recsys_core.json_file import JsonFile
from recsys_core.training.recipe import Choice
from tasks.contracts.evaluation import Latencies, Latency
from tasks.contracts.family import Family, FamilyMember
from tasks.contracts.ingest import FileResult, IngestResult, total_reasons
from tasks.contracts.network import Curve, Epoch, NetworkSummary
from tasks.contracts.recipe import Recipe
from tasks.contracts.registry import Registered
from tasks.contracts.split import Split
from tasks.contracts.teacher import Trust
from tasks.contracts.validation import ExpectationOutcome, ExpectationResult, ValidationReport
from tasks.engine.stage import StageRun
from tasks.stages.report import report
from tests.teacher_check import made_up_check

HOSTILE = '<script>alert("x")</script> & $\\frac{1}{2}$'
SIZES = {
    "teacher": 4_812_344,
    "student": 1_204_112,
    "control": 1_204_112,
    "compressed": 311_840,
    "champion": 318_200,
    "popularity": None,
    "item_knn": None,
}
SHARE_OF_HITS = {
    "teacher": 0.34,
    "student": 0.31,
    "control": 0.27,
    "compressed": 0.308,
    "champion": 0.29,
    "popularity": 0.08,
    "item_knn": 0.19,
}

RECIPE = Recipe(
    log=None,
    choices=(
        Choice(settings={"teacher.model.n_layers": 4}, reason="Histories of 20 events: 4 layers."),
    ),
)


ALONE = Family(
    members=(
        FamilyMember(
            name="main",
            size_bytes=311_840,
            ndcg_at_10=0.15,
            low=0.0,
            fits=True,
            is_good_enough=True,
        ),
    ),
    shipped="main",
)


class World:
    """The artifacts of a made-up night; a test changes files before they are published."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trust: Trust = "by_slice"
        self.summaries: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, Any]] = {
            "ingest": {"ingest.json": ingest_result()},
            "validate": {"validation.json": validation_report()},
            "prepare": {"split.json": split()},
            "choose_recipe": {"recipe.json": RECIPE},
            "plan_teacher": {"plan.json": {}},
            "train_teacher": {Curve.file_name: curve(40, 0.17)},
            "check_teacher": {"check.json": made_up_check()},
            "write_soft_labels": {"soft_labels.json": soft_labels()},
            "distill": {
                Curve.file_name: curve(30, 0.155),
                NetworkSummary.file_name: summary(),
            },
            "control": {Curve.file_name: curve(30, 0.135)},
            "compress": {"model.onnx": "x", "config.json": {}, Family.file_name: ALONE},
            "evaluate": {"metrics.json": METRICS, "latency.json": latencies()},
            "gate": {"verdict.json": verdict()},
            "register": {"registered.json": registered()},
            "promote": {"promotion.json": {}},
        }

    def render(self) -> tuple[dict[str, Any], str]:
        made = {stage: self._publish(stage) for stage in self.files}
        out = self.folder / "report"
        out.mkdir(exist_ok=True)
        run = StageRun.bare(self.folder, out, scratch=self.folder)
        summary = report.body(
            run,
            run_date=date(2026, 3, 1),
            trust=self.trust,
            ingested=made["ingest"],
            validated=made["validate"],
            prepared=made["prepare"],
            recipe=made["choose_recipe"],
            teacher_plan=made.get("plan_teacher"),
            teacher=made.get("train_teacher"),
            teacher_check=made.get("check_teacher"),
            soft_labels=made["write_soft_labels"],
            student=made["distill"],
            control=made["control"],
            compressed=made["compress"],
            evaluated=made["evaluate"],
            registered=made["register"],
            verdict=made["gate"],
            promoted=made["promote"],
        )
        return summary, (out / "report.html").read_text(encoding="utf-8")

    def _publish(self, stage: str) -> Artifact:
        artifact = Artifact(stage, digest(stage), self.folder / stage)
        for name, content in self.files[stage].items():
            if isinstance(content, JsonFile):
                content.save(artifact.folder)
            else:
                write_json(artifact.folder / name, content)
        parts = {
            "config": {"n_layers": 2, "note": HOSTILE},
            "inputs": {"prepared": "k"},
            "version": 1,
            "libraries": {"torch": "2.13.0", "numpy": "2.4.6"},
            "device": "cpu",
        }
        publish(artifact, parts, self.summaries.get(stage, {}))
        return artifact


def made_up_evaluation() -> tuple[EvaluationMetrics, pl.DataFrame]:
    random = np.random.default_rng(1)
    n_users = 1_400
    luck = random.random(n_users)
    slices = {
        "cold_users": random.random(n_users) < 0.2,
        "new_users": random.random(n_users) < 0.05,
        "cold_items": np.zeros(n_users, bool),
        "head": luck < 0.5,
        "mid": (luck >= 0.5) & (luck < 0.85),
        "tail": luck >= 0.85,
    }
    difficulty, place = random.random(n_users), random.integers(1, 11, n_users)
    ranks = {
        model: np.where(difficulty < share * (1.4 - 0.8 * luck), place, 80)
        for model, share in SHARE_OF_HITS.items()
    }
    users = np.array([f"u{user:04}" for user in range(n_users)])
    frame = pl.DataFrame(
        {
            "user_id": users,
            **{f"slice_{name}": mask for name, mask in slices.items()},
            **{f"rank_{model}": column for model, column in ranks.items()},
        }
    )
    figures = {
        name: summarise(
            {model: ranks[model][mask] for model in ranks}, users[mask], n_resamples=200
        )
        for name, mask in {"all": np.ones(n_users, bool), **slices}.items()
    }
    metrics = EvaluationMetrics(
        split="test",
        n_cases=n_users,
        n_users=n_users,
        dropped={"seen": 212, "not_candidate": 9},
        champion=ChampionNote(version=6, not_compared_because=None),
        models={
            model: ModelResult(
                size_bytes=SIZES[model],
                slices={
                    name: SliceResult.model_validate(by_model[model])
                    for name, by_model in figures.items()
                },
            )
            for model in ranks
        },
    )
    return metrics, frame


METRICS, RANKS = made_up_evaluation()


def latencies() -> Latencies:
    measured = {"teacher": 2.31, "student": 0.74, "control": 0.74, "compressed": 0.312}
    models = {model: Latency(latency_ms_p50=latency) for model, latency in measured.items()}
    return Latencies(models=models)


def soft_labels(teacher: str = "teacher-key") -> SoftLabelDescription:
    return SoftLabelDescription(
        format_version=FORMAT_VERSION,
        layout="sparse",
        teacher=teacher,
        item_index_sha256="ab" * 32,
        n_items=3_883,
        trained_through=None,
        columns=("top_ids",),
        top_k=10,
        rows=900_000,
        bytes=9_000_000,
        sha256={},
    )


def registered(name: str = "demo-student") -> Registered:
    return Registered(name=name, version=7, run_id="4f2a", tracking_uri="sqlite:///mlflow.db")


def verdict(*extra_rules: GateRule) -> Verdict:
    rules = (
        *GateConfig().rules,
        GateRule(name="new users", slice="new_users", relative_to="teacher", min_users=200),
        GateRule(name="size", metric="size_bytes", at_most=500_000),
        *extra_rules,
    )
    figures = {"compressed": {"size_bytes": 311_840}}
    config = GateConfig(rules=rules)
    return evaluate_rules(config, METRICS, RANKS, figures, champion_exists=True)


def summary(prior: RecencyPrior | None = None) -> NetworkSummary:
    return NetworkSummary(
        parameters=300_000,
        epochs=30,
        best_epoch=28,
        validation_ndcg_at_10=0.155,
        recency_prior=prior,
    )


def curve(epochs: int, best: float) -> Curve:
    return Curve(
        epochs=[
            Epoch(
                epoch=epoch,
                loss=5.2 + 2.4 * np.exp(-epoch / 8),
                validation_ndcg_at_10=best * (1 - np.exp(-epoch / 9)) if epoch % 2 == 0 else None,
            )
            for epoch in range(1, epochs + 1)
        ]
    )


def file(
    source: str,
    rows_in: int = 90,
    reasons: Mapping[str, int] | None = None,
    duplicates: int = 0,
) -> FileResult:
    reasons = reasons or {}
    refused = sum(reasons.values())
    return FileResult(
        source=source,
        fingerprint="3f9a0c" * 10 + "beef",
        new=True,
        rows_in=rows_in,
        rows_kept=rows_in - refused - duplicates,
        rows_quarantined=refused,
        rows_duplicate=duplicates,
        reasons=dict(reasons),
    )


FILES = (
    file("events/2026-02-28.csv", 48_211, {"item_id is missing": 12, HOSTILE: 3}, 40),
    file("events/2026-02-27.csv", 51_930, {"item_id is missing": 5}),
    file("items.csv", 3_883),
)


def ingest_result(files: Iterable[FileResult] = FILES) -> IngestResult:
    files = tuple(files)
    return IngestResult(
        versions={"interactions": 12, "items": 4, "item_index": 5, "quarantine": 3},
        files=files,
        reasons=dict(total_reasons(files)),
        new_rows=48_156,
        new_dates=(date(2026, 2, 27), date(2026, 2, 28)),
        n_items=3_883,
        item_index_sha256="ab" * 32,
        timestamp_kind="time",
        run_date=date(2026, 3, 1),
        available_until="2026-03-01T00:00:00+00:00",
        max_quarantined_share=0.05,
    )


def expectation(
    column: str,
    text: str,
    *,
    outcome: ExpectationOutcome = "passed",
    unexpected: int | None = 0,
    sample: tuple[str, ...] = (),
) -> ExpectationResult:
    return ExpectationResult(
        name=column,
        column=column,
        expectation=text,
        severity="fail",
        outcome=outcome,
        unexpected=unexpected,
        sample=sample,
        places=(),
        remedy="",
        note="",
        success=outcome != "failed",
    )


EXPECTATIONS = (
    expectation("user_id", "is never null"),
    expectation("timestamp", "lies before the end of the night's data", unexpected=None),
    expectation("event_type", "is known", outcome="failed", unexpected=2, sample=(HOSTILE,)),
)


def validation_report(
    expectations: tuple[ExpectationResult, ...] = EXPECTATIONS,
) -> ValidationReport:
    return ValidationReport(
        n_rows=48_156,
        success=all(expectation.success for expectation in expectations),
        expectations=expectations,
        days=(),
    )


def split(event_types: tuple[str, ...] = ("click", "purchase")) -> Split:
    return Split(
        kind="global_time",
        trained_through="2026-02-26T00:00:00+00:00",
        validation_start="2026-02-26T00:00:00+00:00",
        test_start="2026-02-27T00:00:00+00:00",
        n_items=3_883,
        item_index_sha256="ab" * 32,
        n_buckets=8,
        lake_version=12,
        lake_rows=921_000,
        event_types=event_types,
        targets=TargetConfig(),
        exclude_seen=True,
        text_encoder=None,
        n_users=6_040,
        train_events=912_000,
        validation_events=4_500,
        test_events=4_500,
    )
