"""Register: the compressed student becomes a version in the registry, and the challenger."""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_core.artifacts import Artifact, digest, read_json
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.evaluation.results import EvaluationMetrics, UserMean
from recsys_core.serving.folder import SERVED_FILES
from recsys_core.serving.scorer import Scorer
from tasks.contracts.family import Family, size_folder
from tasks.contracts.network import Curve, network_in_words
from tasks.contracts.registry import Registered
from tasks.engine.stage import StageRun, Summary, stage
from tasks.registry.card import model_card
from tasks.registry.store import CHALLENGER, Registry, RegistryConfig, student_name

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_SMOKE_K = 10


class SmokeTestError(RuntimeError):
    """The version that was loaded back from the registry differs from what was registered."""


@stage(output="registered", version=5, libraries=("onnxruntime", "polars"))
def register(
    run: StageRun,
    config: RegistryConfig,
    *,
    name: str,
    run_date: date,
    teacher: Artifact | None,
    soft_labels: Artifact,
    student: Artifact,
    control: Artifact,
    compressed: Artifact,
    evaluated: Artifact,
) -> Summary:
    """Log the night, register the compressed student, load it back, write `registered.json`.

    Args:
        run: Folders, key and the night's settings.
        config: Where the registry is.
        name: The night's name.
        run_date: The night's date.
        teacher: `curve.json`; None: external.
        soft_labels: `label_origin.json`, if the labels were made elsewhere.
        student: `curve.json` of the student that ships.
        control: `curve.json`.
        compressed: The served model's folder; `family.json`.
        evaluated: `metrics.json`.

    Raises:
        SmokeTestError: The version's recommendations differ from those of the compressed student.
    """
    registry = Registry(run.workspace, config)
    model_name = student_name(name)
    taught = {"student": student, "control": control}
    trained = taught if teacher is None else {"teacher": teacher, **taught}
    inputs = {**trained, "soft_labels": soft_labels, "compressed": compressed}
    lineage = {output: one.key for output, one in (inputs | {"evaluated": evaluated}).items()}
    labels = LabelOrigin.of(soft_labels)
    metrics = EvaluationMetrics.load(evaluated)
    served = read_json(compressed.file("config.json"))
    card = model_card(model_name, served, metrics, lineage, labels)
    folder = _model_folder(run.scratch, compressed, evaluated, card)
    # MLflow refuses changed settings in a run, and the stage's key does not cover all of them.
    run_id = registry.open_run(name, run_date.isoformat(), digest([run.key, run.settings]))
    registry.log_night(
        run_id,
        params=_flat(run.settings),
        metrics=_flat_metrics(metrics),
        curves=_curve_metrics(
            {name: one.folder for name, one in trained.items()}
            | {"student": size_folder(student.folder, Family.load(compressed).shipped)}
        ),
        artifacts=[folder / EvaluationMetrics.file_name, folder / "model_card.md"],
    )
    version = registry.register_student(
        model_name,
        key=run.key,
        run_id=run_id,
        folder=folder,
        scratch=run.scratch,
        tags={
            "run_date": run_date.isoformat(),
            "trained_through": str(served["trained_through"]),
            **{f"made_of.{stage}": key for stage, key in lineage.items()},
            **_student_tags(served["metadata"]),
            **{f"labels.{field}": str(value) for field, value in labels or ()},
        },
        description=card,
    )
    _smoke_test(registry.load_student(model_name, version), Scorer(compressed.folder))
    registry.set_alias(model_name, CHALLENGER, version)
    registry.finish_run(run_id)
    registered = Registered(
        name=model_name, version=version, run_id=run_id, tracking_uri=registry.uri
    )
    registered.save(run.out)
    return registered.model_dump()


def _student_tags(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Which student ships: its name, its network, and the weights of its prior if it has one."""
    prior = metadata["recency_prior"] or {}
    return {
        "student.size": metadata["size"],
        "student.network": network_in_words(metadata["network"]),
        **{f"recency_prior.{name}": str(prior[name]) for name in ("gamma", "delta") if prior},
    }


def _model_folder(scratch: Path, compressed: Artifact, evaluated: Artifact, card: str) -> Path:
    """The served files, the metrics and the model card in one folder."""
    folder = scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in SERVED_FILES:
        shutil.copyfile(compressed.file(file), folder / file)
    metrics = EvaluationMetrics.file_name
    shutil.copyfile(evaluated.file(metrics), folder / metrics)
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    return folder


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted name; lists become JSON."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _flat_metrics(metrics: EvaluationMetrics) -> dict[str, float]:
    """`test/compressed/all/ndcg_at_10` and so on, without metrics that have no value."""
    flat: dict[str, float] = {}
    for model, result in metrics.models.items():
        if result.size_bytes is not None:
            flat[f"size_bytes/{model}"] = result.size_bytes
        for slice_name, on_slice in result.slices.items():
            for metric, value in on_slice:
                mean = value.mean if isinstance(value, UserMean) else value
                if mean is not None:
                    flat[f"{metrics.split}/{model}/{slice_name}/{metric}"] = mean
    return flat


def _curve_metrics(trained: Mapping[str, Path]) -> dict[str, list[tuple[int, float]]]:
    """`curve/student/loss` and so on, by epoch."""
    metrics: dict[str, list[tuple[int, float]]] = {}
    for model, folder in trained.items():
        metrics |= Curve.load(folder).as_metrics(model)
    return metrics


def _smoke_test(loaded: "PyFuncModel", scorer: Scorer) -> None:
    """Compare recommendations after short, long, empty and unknown histories."""
    import pandas as pd

    ids = scorer.item_ids
    histories = [ids[:3], ids[-1:], ids[: 2 * scorer.max_length], [], ["no such item"]]
    k = min(_SMOKE_K, len(ids))
    loaded_answers = loaded.predict(pd.DataFrame({"history": histories}), params={"k": k})
    expected = scorer.recommend(histories, k=k)
    for history, item_ids, scores, answer in zip(
        histories, loaded_answers["item_ids"], loaded_answers["scores"], expected, strict=True
    ):
        if list(item_ids) != answer.item_ids or not _close(scores, answer.scores):
            msg = (
                f"After a history of {len(history)} items, the version loaded back from the "
                f"registry recommends {list(item_ids)[:3]}, but the compressed student recommends "
                f"{answer.item_ids[:3]}. The version stays without an alias; check the registry's "
                "artifacts."
            )
            raise SmokeTestError(msg)


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= 1e-5 * max(1, abs(b)) for a, b in zip(one, other, strict=True))
