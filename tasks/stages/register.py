"""Register: the compressed student becomes a version in the registry, and the challenger."""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_core.artifacts import Artifact, digest, read_json, write_json
from recsys_core.serving.folder import SERVED_FILES
from recsys_core.serving.scorer import Scorer
from tasks.engine.stage import StageRun, Summary, stage
from tasks.registry.card import model_card
from tasks.registry.store import CHALLENGER, Registry, RegistryConfig, student_name

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_SMOKE_K = 10


class SmokeTestError(RuntimeError):
    """What was loaded back from the registry is not what was registered."""


@stage(output="registered", version=1, libraries=("onnxruntime",))
def register(
    run: StageRun,
    config: RegistryConfig,
    *,
    name: str,
    run_date: date,
    teacher: Artifact,
    student: Artifact,
    control: Artifact,
    compressed: Artifact,
    evaluated: Artifact,
) -> Summary:
    """Log the night, register the compressed student, load it back, write `registered.json`.

    Args:
        run: Where and how.
        config: Where the registry is.
        name: The night's name.
        run_date: The night's date.
        teacher: `curve.json`.
        student: See teacher.
        control: See teacher.
        compressed: The served model's folder.
        evaluated: `metrics.json`.

    Raises:
        SmokeTestError: The version answers otherwise than the folder that it was made of.
    """
    registry = Registry(run.workspace, config)
    model_name = student_name(name)
    trained = {"teacher": teacher, "student": student, "control": control}
    made = {**trained, "compressed": compressed, "evaluated": evaluated}
    lineage = {output: artifact.key for output, artifact in made.items()}
    metrics = read_json(evaluated.file("metrics.json"))
    served = read_json(compressed.file("config.json"))
    card = model_card(model_name, served, metrics, lineage)
    folder = _model_folder(run.scratch, compressed, evaluated, card)
    # Logged settings can't change, and not all of them are part of the stage's key.
    run_id = registry.open_run(name, run_date.isoformat(), digest([run.key, run.settings]))
    registry.log_night(
        run_id,
        params=_flat(run.settings),
        metrics=_figures(metrics),
        curves=_curves(trained),
        artifacts=[folder / "metrics.json", folder / "model_card.md"],
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
        },
        description=card,
    )
    _smoke_test(registry.load_student(model_name, version), Scorer(compressed.folder))
    registry.set_alias(model_name, CHALLENGER, version)
    registry.finish_run(run_id)
    facts = {
        "name": model_name,
        "version": version,
        "run_id": run_id,
        "tracking_uri": registry.uri,
    }
    write_json(run.out / "registered.json", facts)
    return facts


def _model_folder(scratch: Path, compressed: Artifact, evaluated: Artifact, card: str) -> Path:
    """The served files, with the figures that the gate sees and the model card beside them."""
    folder = scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in SERVED_FILES:
        shutil.copyfile(compressed.file(file), folder / file)
    shutil.copyfile(evaluated.file("metrics.json"), folder / "metrics.json")
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    return folder


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names; lists as JSON."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """`test/compressed/all/ndcg_at_10` and so on; what could not be computed is left out."""
    figures: dict[str, float] = {}
    for model, facts in metrics["models"].items():
        if facts["size_bytes"] is not None:
            figures[f"size_bytes/{model}"] = facts["size_bytes"]
        for part, values in facts["slices"].items():
            for metric, value in values.items():
                mean = value["mean"] if isinstance(value, Mapping) else value
                if mean is not None:
                    figures[f"{metrics['split']}/{model}/{part}/{metric}"] = mean
    return figures


def _curves(trained: Mapping[str, Artifact]) -> dict[str, list[tuple[int, float]]]:
    """`curve/student/loss` and so on, by epoch."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for model, artifact in trained.items():
        points = read_json(artifact.file("curve.json"))
        for metric in ("loss", "validation_ndcg_at_10"):
            curves[f"curve/{model}/{metric}"] = [
                (point["epoch"], point[metric]) for point in points if point[metric] is not None
            ]
    return curves


def _smoke_test(loaded: "PyFuncModel", scorer: Scorer) -> None:
    """Ask the version and the folder the same: short, long, empty and unknown histories."""
    import pandas as pd

    ids = scorer.item_ids
    histories = [ids[:3], ids[-1:], ids[: 2 * scorer.max_length], [], ["no such item"]]
    k = min(_SMOKE_K, len(ids))
    found = loaded.predict(
        pd.DataFrame({"history": histories}), params={"k": k, "exclude_seen": False}
    )
    expected = scorer.recommend(histories, k=k, exclude_seen=False)
    for history, item_ids, scores, answer in zip(
        histories, found["item_ids"], found["scores"], expected, strict=True
    ):
        if list(item_ids) != answer.item_ids or not _close(scores, answer.scores):
            msg = (
                f"The version that was loaded back from the registry answers {list(item_ids)[:3]} "
                f"after a history of {len(history)} items, the folder that it was made of "
                f"{answer.item_ids[:3]}. It stays without an alias; check the registry's artifacts."
            )
            raise SmokeTestError(msg)


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= 1e-5 * max(1, abs(b)) for a, b in zip(one, other, strict=True))
