"""Compress the student: prune channels, recover, export, quantize, compare.

The output is the folder that is served: `model.onnx`, `item_ids.json.bz2`, `config.json`. Of
several students the smallest that is good enough is served, and the others lie in subfolders.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import Field

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.compression.export import export_onnx
from recsys_core.compression.parity import (
    Difference,
    Parity,
    Precision,
    check_export,
    graph_parity,
    ranks_as_well,
)
from recsys_core.compression.parts import bytes_by_part
from recsys_core.compression.pruning import ffn_importance, prune_ffn
from recsys_core.compression.quantization import quantize
from recsys_core.data.histories.cases import IntArray
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.candidates import distillation_candidates
from recsys_core.evaluation.family import Student, judge, smallest
from recsys_core.evaluation.metrics import Values
from recsys_core.evaluation.popularity import cold_start_scores
from recsys_core.evaluation.recency_prior import RecencyPrior
from recsys_core.evaluation.statistics import paired_difference
from recsys_core.models.checkpoint import load_model
from recsys_core.models.ranker import pad_histories
from recsys_core.models.recommender import MIN_FFN_DIM, Recommender
from recsys_core.serving.folder import served_bytes, write_item_ids
from recsys_core.serving.ranker import scorer_ranker
from recsys_core.serving.scorer import FORMAT, Scorer
from recsys_core.settings import Settings
from recsys_core.training.loop import LoopConfig, TrainingConfig, fit
from tasks.contracts.family import Family, FamilyMember, size_folder, size_names
from tasks.engine.stage import StageRun, Summary, stage
from tasks.stages.distill import DistillationConfig, loss_of
from tasks.training.network import TRAINING_LIBRARIES, save_curve, training_set_of
from tasks.training.prepared import Prepared
from tasks.training.recency import fit_recency_prior
from tasks.training.student import size_run
from tasks.training.trust import Trusted, trusted_labels


class CompressionConfig(Settings):
    """How the student is made smaller, and how much its ranking may change."""

    ffn_keep_share: float = Field(
        default=0.75, gt=0, le=1, description="Share of the SwiGLU channels to keep"
    )
    recovery: LoopConfig = Field(
        default=LoopConfig(epochs=2, validate_every=1, learning_rate=2e-4),
        description="Training after pruning, with the distillation loss over the student's "
        "candidates",
    )
    calibration_users: int = Field(
        default=256, ge=1, le=100_000, description="Histories for channel importance and parity"
    )
    max_ndcg_loss: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Largest share of NDCG@10 that rounding to int8 may cost on validation events; "
        "where it costs more, the model is served in fp32",
    )
    min_overlap_at_10: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="With too few users to decide by NDCG@10: smallest share of the network's top "
        "10 that the int8 model's top 10 must hold",
    )
    max_size_loss: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="With student.sizes: share of the best student's NDCG@10 on validation events "
        "that a smaller one may lose and still ship, at 95 % confidence",
    )
    validation_cases: int = Field(
        default=10_000,
        ge=1,
        description="Held-out events on which int8 and fp32 are compared, at most approximately",
    )

    def kept_channels(self, ffn_dim: int) -> int:
        """How many of a student's SwiGLU channels are kept."""
        return min(ffn_dim, max(MIN_FFN_DIM, round(self.ffn_keep_share * ffn_dim)))

    def recovery_epochs(self, ffn_dim: int) -> int:
        """Epochs of the recovery of a student with so many channels; 0: nothing is pruned."""
        return self.recovery.epochs if self.kept_channels(ffn_dim) < ffn_dim else 0


@stage(
    output="compressed",
    version=8,
    libraries=(*TRAINING_LIBRARIES, "onnx", "onnxruntime", "onnxscript"),
)
def compress(
    run: StageRun,
    config: CompressionConfig,
    *,
    distillation: DistillationConfig,
    training: TrainingConfig,
    recency_prior: bool,
    max_bytes: float | None,
    prepared: Artifact,
    student: Artifact,
    teacher_check: Artifact | None,
    soft_labels: Artifact,
) -> Summary:
    """Write the served model, `parity.json`, the recovery's `curve.json`, and `family.json`.

    Students that don't ship have the same files in `sizes/NAME`. A rerun after a kill continues
    with the student that was being compressed.

    Args:
        run: Folders, device and progress.
        config: How students are compressed, and which of them ships.
        distillation: The loss of the recovery.
        training: The student's training; the recovery has the same candidates.
        recency_prior: Whether the compressed students may get a recency prior.
        max_bytes: What the gate allows the model that ships; None: any size.
        prepared: Tonight's data.
        student: The students.
        teacher_check: Says where the teacher's labels don't count; None: external, all count.
        soft_labels: What the students are recovered with.
    """
    data = Prepared(prepared)
    labels = SoftLabels(soft_labels.folder, item_index_sha256=data.split.item_index_sha256)
    trusted = trusted_labels(data, teacher_check, labels, distillation.trust)
    names = size_names(student.folder)
    served = replace(run, out=run.scratch / "served")
    for number, name in enumerate(names):
        member = size_run(served, name, number, len(names))
        if not (member.out / Parity.file_name).exists():
            model = load_model(size_folder(student.folder, name))
            model = _pruned(member, model, config, distillation, training, data, labels, trusted)
            validator = data.validator(config.validation_cases)
            prior = fit_recency_prior(run, model, data, validator) if recency_prior else None
            made_of = {"student": student.key, "size": name}
            _export(member, model.cpu(), data, config, made_of, prior).save(member.out)
    family = _family(served, names, config.max_size_loss, max_bytes)
    for name in names:
        target = family.served_folder(run.out, name)
        target.mkdir(parents=True, exist_ok=True)
        for path in size_folder(served.out, name).glob("*.*"):
            shutil.copyfile(path, target / path.name)
    family.save(run.out)
    metadata = read_json(run.out / "config.json")["metadata"]
    parts = bytes_by_part(run.out)
    run.logger.info("Served: %s", ", ".join(f"{part} {parts[part]:,} B" for part in parts))
    return {
        "ffn_dim": metadata["network"]["ffn_dim"],
        "bytes": served_bytes(run.out),
        "bytes_by_part": parts,
        "recency_prior": metadata["recency_prior"],
        **Parity.load(run.out).model_dump(),
        **({"shipped": family.shipped} if family.others else {}),
    }


def _pruned(
    run: StageRun,
    model: Recommender,
    config: CompressionConfig,
    distillation: DistillationConfig,
    training: TrainingConfig,
    data: Prepared,
    labels: SoftLabels,
    trusted: Trusted,
) -> Recommender:
    """The student, pruned and recovered, without its recency prior; writes the recovery's curve."""
    model.item_bias = None
    keep = config.kept_channels(model.config.ffn_dim)
    if keep < model.config.ffn_dim:
        calibration = _calibration_histories(data, config.calibration_users)
        padded, _ = pad_histories(calibration, model.config.max_length)
        model = prune_ffn(model, keep, ffn_importance(model, torch.from_numpy(padded)))
        _recover(run, model, data, config.recovery, distillation, training, labels, trusted)
    return model


def _family(
    served: StageRun, names: Sequence[str], max_loss: float, max_bytes: float | None
) -> Family:
    """Judge the served models on validation events, never on test events."""
    students = {
        name: Student(
            served_bytes(size_folder(served.out, name)),
            _load_values(size_folder(served.scratch, name)),
        )
        for name in names
    }
    judged = judge(students, max_loss=max_loss, max_bytes=max_bytes)
    members = (
        FamilyMember(
            name=name,
            size_bytes=student.size_bytes,
            ndcg_at_10=float(student.ndcg_at_10.mean()),
            **judged[name]._asdict(),
        )
        for name, student in students.items()
    )
    return Family(members=tuple(members), shipped=smallest(students, judged))


def _export(
    run: StageRun,
    model: Recommender,
    data: Prepared,
    config: CompressionConfig,
    made_of: dict[str, str],
    prior: RecencyPrior | None,
) -> Parity:
    """Write the served model: in int8, or in fp32 if rounding would make it rank worse.

    NDCG@10 of each user by what is served is kept in the scratch folder.
    """
    active = data.items.filter("active")
    active = active[np.argsort(-cold_start_scores(active))]
    ids, rows = active["item_id"].to_list(), active["item_idx"].to_list()
    exact, rounded = run.scratch / "fp32", run.out
    precisions: dict[Path, Precision] = {exact: "fp32", rounded: "int8"}
    for folder, precision in precisions.items():
        folder.mkdir(exist_ok=True)
        write_item_ids(folder, ids)
        metadata = made_of | {
            "network": model.config.model_dump(),
            "precision": precision,
            "recency_prior": None if prior is None else prior.model_dump(),
        }
        write_json(folder / "config.json", _served_config(model, data, len(active), metadata))
    export_onnx(model, exact / "model.onnx", active=rows)
    quantize(exact / "model.onnx", rounded / "model.onnx")
    calibration = _calibration_histories(data, config.calibration_users)
    of_exact, of_rounded = (
        graph_parity(
            model,
            folder / "model.onnx",
            active=rows,
            histories=calibration,
            exclude_seen=data.exclude_seen,
        )
        for folder in (exact, rounded)
    )
    check_export(of_exact)
    validator = data.validator(config.validation_cases)
    ndcg, rounded_ndcg = (
        validator.by_user(scorer_ranker(Scorer(folder), data.items["item_id"].to_list()))
        for folder in (exact, rounded)
    )
    difference = Difference(**paired_difference(rounded_ndcg, ndcg)._asdict())
    is_good = ranks_as_well(
        of_rounded.overlap_at_10,
        difference,
        min_overlap=config.min_overlap_at_10,
        max_loss=config.max_ndcg_loss * float(ndcg.mean()),
    )
    if not is_good:
        run.logger.warning(
            "Rounding to int8 costs too much (NDCG@10 %+.4f, from %+.4f to %+.4f; overlap of the "
            "ten best %.3f), so the model is served in fp32, in more bytes",
            *(difference.mean, difference.low, difference.high, of_rounded.overlap_at_10),
        )
        shutil.copytree(exact, rounded, dirs_exist_ok=True)
    _save_values(run.scratch, rounded_ndcg if is_good else ndcg)
    return Parity(
        **(of_rounded if is_good else of_exact).model_dump(),
        exact_max_abs_difference=of_exact.max_abs_difference,
        precision=precisions[rounded if is_good else exact],
        ndcg_at_10=float(ndcg.mean()),
        rounded_ndcg_difference=difference,
    )


_VALUES = "ndcg_at_10.parquet"


def _save_values(folder: Path, values: Values) -> None:
    pl.DataFrame({"ndcg_at_10": values}).write_parquet(folder / _VALUES)


def _load_values(folder: Path) -> Values:
    return pl.read_parquet(folder / _VALUES)["ndcg_at_10"].to_numpy()


def _recover(
    run: StageRun,
    model: Recommender,
    data: Prepared,
    config: LoopConfig,
    distillation: DistillationConfig,
    training: TrainingConfig,
    labels: SoftLabels,
    trusted: Trusted,
) -> None:
    training_set = training_set_of(
        data, model.max_length, config, labels=labels, trusted=trusted.positions
    )
    if model.content is not None:  # so that the vectors of cold items, content only, stay
        model.content.requires_grad_(False)
    counts = training_set.item_counts(len(data.items))
    candidates = distillation_candidates(counts, training)
    loss = loss_of(distillation, labels, candidates, run.device, trusted.distrusted_items)
    curve = fit(
        model.to(run.device),
        training_set,
        config,
        candidates=candidates,
        loss=loss,
        validate=data.validator(config.validation_cases),
        checkpoint=run.scratch / "checkpoint",
        clock=time.monotonic,
        progress=run.progress,
    )
    save_curve(run.out, curve)


def _calibration_histories(data: Prepared, n_users: int) -> list[IntArray]:
    """Training histories of the first users; users are in the order of a hash of their ids."""
    chosen: list[IntArray] = []
    for bucket in data.buckets:
        histories = read_training_histories([bucket])
        users = np.flatnonzero(histories.lengths > 0)[: n_users - len(chosen)]
        bounds = zip(histories.starts[users], histories.starts[users + 1], strict=True)
        chosen += [histories.items[start:end] for start, end in bounds]
        if len(chosen) == n_users:
            break
    return chosen


def _served_config(
    model: Recommender, data: Prepared, n_active: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "max_length": model.config.max_length,
        "n_items": n_active,
        "embedding_dim": model.config.embedding_dim,
        "trained_through": data.split.trained_through,
        "item_index_sha256": data.split.item_index_sha256,
        "exclude_seen": data.exclude_seen,
        "metadata": metadata,
    }
