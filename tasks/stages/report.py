"""Report: the night on one HTML page that needs no network, no script and no server."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from markupsafe import Markup

from recsys_core.artifacts import Artifact, read_manifest
from recsys_core.data.soft_labels.description import SoftLabelDescription
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.evaluation.recency_prior import RecencyPrior
from recsys_core.evaluation.results import (
    MODELS,
    EvaluationMetrics,
    RuleOutcome,
    SliceResult,
    UserMean,
    Verdict,
)
from recsys_core.units import format_bytes
from tasks.contracts.evaluation import Latencies, artefact_figures
from tasks.contracts.family import Family, size_folder
from tasks.contracts.ingest import IngestResult, total_reasons, total_rows
from tasks.contracts.network import Curve, NetworkSummary
from tasks.contracts.recipe import Recipe
from tasks.contracts.registry import Registered
from tasks.contracts.split import Split
from tasks.contracts.teacher import TeacherCheck, Trust
from tasks.contracts.validation import ValidationReport
from tasks.engine.stage import StageRun, Summary, stage
from tasks.html.family import family_rows
from tasks.html.plots import (
    LOOKS,
    Estimate,
    curve_plot,
    quality_plot,
    size_plot,
    slice_plot,
)
from tasks.html.render import FINDING_BADGES, render

MAX_FILES = 50

DESCRIPTIONS: dict[str, str] = {
    "teacher": "the large model",
    "student": "trained on events and soft labels",
    "control": "no teacher; size before pruning and epochs of what ships, begun at random",
    "compressed": "pruned and quantized student: what ships",
    "champion": "what was serving before this night",
    "item_knn": "baseline: neighbours of the newest items",
    "popularity": "baseline: the same for everybody",
}
SLICES = {
    "all": ("All", "every case"),
    "new_users": ("New users", "no training event"),
    "cold_users": ("Cold users", "short histories"),
    "cold_items": ("Cold items", "no training interaction"),
    "head": ("Head", "items with the first 50 % of interactions"),
    "mid": ("Mid", "items with the next 40 %"),
    "tail": ("Tail", "all other items"),
}
OUTCOMES: dict[RuleOutcome, str] = {
    "pass": "holds",
    "fail": "fails",
    "insufficient_n": "too few users",
    "skipped": "skipped",
}
SPLITS = {"global_time": "global time split", "leave_one_out": "leave-one-out"}


@stage(output="report", version=5, libraries=("jinja2", "matplotlib", "numpy", "scipy"))
def report(
    run: StageRun,
    *,
    run_date: date,
    trust: Trust,
    ingested: Artifact,
    validated: Artifact,
    prepared: Artifact,
    recipe: Artifact,
    teacher_plan: Artifact | None,
    teacher: Artifact | None,
    teacher_check: Artifact | None,
    soft_labels: Artifact,
    student: Artifact,
    control: Artifact,
    compressed: Artifact,
    evaluated: Artifact,
    registered: Artifact,
    verdict: Artifact,
    promoted: Artifact,
) -> Summary:
    """Write `report.html` from the outputs of all stages.

    Args:
        run: The output's folder.
        run_date: The night's date.
        trust: Where soft labels count.
        ingested: `ingest.json`.
        validated: `validation.json`.
        prepared: `split.json`.
        recipe: `recipe.json`.
        teacher_plan: Listed under provenance, as every output is.
        teacher: `curve.json`; None: external.
        teacher_check: `check.json`; None: external.
        soft_labels: `soft_labels.json`, and `label_origin.json` if the labels were made elsewhere.
        student: `curve.json` and `summary.json` of the student that ships.
        control: `curve.json`.
        compressed: `family.json`, and the `config.json` of each student.
        evaluated: `metrics.json`, `latency.json`.
        registered: `registered.json`.
        verdict: `verdict.json`.
        promoted: Listed under provenance.
    """
    decided = Verdict.load(verdict)
    shipped = size_folder(student.folder, Family.load(compressed).shipped)
    artifacts = [
        *(ingested, validated, prepared, recipe),
        *(one for one in (teacher_plan, teacher, teacher_check) if one is not None),
        *(soft_labels, student, control, compressed, evaluated, registered, verdict, promoted),
    ]
    context = {
        "run_date": run_date.isoformat(),
        "verdict": decided,
        "outcome_names": OUTCOMES,
        **_quality(evaluated, compressed),
        **_data(IngestResult.load(ingested), Split.load(prepared)),
        "finding_badges": FINDING_BADGES,
        "expectations": ValidationReport.load(validated).expectations,
        "choices": Recipe.load(recipe).choices,
        "label_sentences": _label_sentences(
            teacher_check, SoftLabelDescription.load(soft_labels).teacher, trust
        ),
        "labels": LabelOrigin.of(soft_labels),
        "trains_teacher": teacher is not None,
        "priors": list(_priors(teacher, shipped, control, compressed)),
        "registered": _facts(Registered.load(registered).model_dump()),
        **_provenance(artifacts),
    }
    taught = {"student": shipped, "control": control.folder}
    curves = _curves(taught if teacher is None else {"teacher": teacher.folder, **taught})
    context["plots"]["curves"] = Markup(curve_plot(curves)) if curves else ""  # noqa: S704
    page = render("stages/report.html.j2", context)
    (run.out / "report.html").write_text(page, encoding="utf-8", newline="\n")
    return {"passed": decided.passed, "bytes": len(page.encode())}


def _quality(evaluated: Artifact, compressed: Artifact) -> dict[str, Any]:
    """Tables and plots of the evaluation."""
    metrics = EvaluationMetrics.load(evaluated)
    figures = artefact_figures(metrics, Latencies.load(evaluated))
    names = [name for name in MODELS if name in metrics.models]
    by_slice = {name: metrics.models[name].slices for name in names}
    reference = "control" if metrics.teacher_is_external else "teacher"
    its_ndcg = by_slice[reference]["all"].ndcg_at_10.mean if reference in by_slice else None
    models = [_model_row(name, by_slice[name]["all"], figures[name], its_ndcg) for name in names]
    known = [name for name in SLICES if any(name in slices for slices in by_slice.values())]
    overall = _estimates(by_slice, "all")
    sizes = {name: figures[name]["size_bytes"] or 0 for name in names}
    plots = {
        "quality": quality_plot(overall),
        "size": size_plot(overall, sizes) if any(sizes.values()) else "",
        "slices": slice_plot(
            {
                f"{SLICES[name][0]} ({_n_users(by_slice, name):,})": estimates
                for name in known
                if (estimates := _estimates(by_slice, name))
            }
        ),
    }
    return {
        "metrics": metrics,
        "models": models,
        "reference": reference,
        "family": family_rows(compressed, metrics, figures),
        "tiles": _headline_tiles(models, metrics, reference),
        "slices": [_slice_row(name, by_slice) for name in known],
        # Our own drawings, whose texts Matplotlib escapes.
        "plots": {name: Markup(svg) for name, svg in plots.items()},  # noqa: S704
    }


def _model_row(
    name: str,
    overall: SliceResult,
    figures: Mapping[str, float | None],
    reference_ndcg: float | None,
) -> dict[str, Any]:
    size, ndcg = figures["size_bytes"], overall.ndcg_at_10.mean
    return {
        "name": name,
        "label": LOOKS[name].label,
        "what": DESCRIPTIONS[name],
        **overall.metrics(),
        "share": ndcg / reference_ndcg if reference_ndcg and ndcg is not None else None,
        "size": format_bytes(size) if size else "–",
        "latency_ms": figures["latency_ms_p50"],
    }


_BySlice = Mapping[str, Mapping[str, SliceResult]]


def _slice_row(name: str, by_slice: _BySlice) -> dict[str, Any]:
    label, what = SLICES[name]
    return {
        "label": label,
        "what": what,
        "n_users": _n_users(by_slice, name),
        "means": [
            slices[name].ndcg_at_10.mean if name in slices else None for slices in by_slice.values()
        ],
    }


def _n_users(by_slice: _BySlice, name: str) -> int:
    return max(slices[name].n_users for slices in by_slice.values() if name in slices)


def _estimates(by_slice: _BySlice, name: str) -> dict[str, Estimate]:
    """NDCG@10 of the models that have users on the slice."""
    return {
        model: estimate
        for model, slices in by_slice.items()
        if name in slices and (estimate := _estimate(slices[name].ndcg_at_10))
    }


def _estimate(value: UserMean) -> Estimate | None:
    if value.mean is None or value.low is None or value.high is None:
        return None
    return Estimate(value.mean, value.low, value.high)


def _headline_tiles(
    models: Iterable[Mapping[str, Any]], metrics: EvaluationMetrics, reference: str
) -> list[dict[str, str]]:
    shipped = next((model for model in models if model["name"] == "compressed"), None)
    if shipped is None:
        return []
    mean, share = shipped["ndcg_at_10"].mean, shipped["share"]
    of_reference = "–" if share is None else f"{100 * share:.1f} %"
    latency = shipped["latency_ms"]
    return [
        _tile("NDCG@10", "–" if mean is None else f"{mean:.4f}", "of the compressed student"),
        _tile(f"Of the {reference}", of_reference, "of its NDCG@10"),
        _tile("Size on disk", shipped["size"], "model, item ids, configuration"),
        _tile("Latency", "–" if latency is None else f"{latency:.3g} ms", "median, one request"),
        _tile("Evaluated on", f"{metrics.n_users:,}", f"users, {metrics.n_cases:,} cases"),
    ]


def _data(ingested: IngestResult, split: Split) -> dict[str, Any]:
    files = ingested.files
    rows = total_rows(files)
    share = f"{100 * rows['quarantined'] / max(1, rows['in']):.2f} % of the rows read"
    return {
        "data_tiles": [
            _tile("Rows read", f"{rows['in']:,}", f"from {len(files):,} files"),
            _tile("Kept", f"{rows['kept']:,}", f"{ingested.new_rows:,} of them new"),
            _tile("Quarantined", f"{rows['quarantined']:,}", share),
            _tile("Duplicates", f"{rows['duplicate']:,}", "left out"),
            _tile("Users", f"{split.n_users:,}", f"{ingested.n_items:,} items"),
        ],
        "files": files[:MAX_FILES],
        "n_more_files": max(0, len(files) - MAX_FILES),
        "reasons": total_reasons(files).most_common(),
        "split_name": SPLITS[split.kind],
        "split_facts": _facts(
            {**split.model_dump(mode="json"), "lake_versions": ingested.versions}
        ),
    }


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values in words, without values that are None."""
    return [
        (name.replace("_", " "), _in_words(value))
        for name, value in sorted(values.items())
        if value is not None
    ]


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in sorted(value.items()))
    return str(value)


_CONSEQUENCES = {
    **dict.fromkeys(("cold_users", "warm_users"), "The teacher's labels don't count there."),
    "tail": "What the teacher says of these items doesn't count.",
}


def _label_sentences(teacher_check: Artifact | None, labels_of: str, trust: Trust) -> list[str]:
    """Where soft labels don't count and why; one sentence if they count everywhere."""
    if teacher_check is None:
        return []
    check = TeacherCheck.load(teacher_check)
    if labels_of != check.teacher:
        return [f"The labels are of another teacher, {labels_of}; all of them count."]
    if left_out := check.left_out(trust, labels_of):
        return [f"{part.sentence} {_CONSEQUENCES[part.slice]}" for part in left_out]
    if worse := check.left_out("by_slice", labels_of):
        why = "All labels count, because distillation.trust is everywhere."
        return [*(part.sentence for part in worse), why]
    return [
        "The teacher's labels count everywhere: neither for cold users, nor for warm users, nor on "
        "tail items does it rank worse than a baseline beyond chance."
    ]


def _priors(
    teacher: Artifact | None, student: Path, control: Artifact, compressed: Artifact
) -> Iterator[tuple[str, RecencyPrior]]:
    """The recency priors of the networks that got one, with their labels."""
    priors = {
        "teacher": None if teacher is None else teacher.summary.get("recency_prior"),
        "student": NetworkSummary.load(student).recency_prior,
        "control": control.summary.get("recency_prior"),
        "compressed": compressed.summary.get("recency_prior"),
    }
    for name, prior in priors.items():
        if prior is not None:
            yield LOOKS[name].label, RecencyPrior.model_validate(prior)


def _curves(networks: Mapping[str, Path]) -> dict[str, Curve]:
    """Learning curves of the networks that this night trained."""
    curves = {name: Curve.load(folder) for name, folder in networks.items()}
    return {name: curve for name, curve in curves.items() if curve.epochs}


def _provenance(artifacts: Iterable[Artifact]) -> dict[str, Any]:
    manifests = [read_manifest(artifact.folder) for artifact in artifacts]
    parts = [manifest["parts"] for manifest in manifests]
    libraries = {name: used for part in parts for name, used in part["libraries"].items() if used}
    return {
        "stages": [
            {
                "name": manifest["stage"],
                "key": manifest["key"],
                "inputs": sorted(manifest["parts"]["inputs"]),
                "n_files": len(manifest["files"]),
                "size": format_bytes(sum(file["bytes"] for file in manifest["files"].values())),
            }
            for manifest in manifests
        ],
        "device": parts[-1]["device"],
        "libraries": sorted(libraries.items()),
        "configuration": json.dumps(
            {manifest["stage"]: manifest["parts"]["config"] for manifest in manifests}, indent=2
        ),
    }
