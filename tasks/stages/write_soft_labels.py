"""Write the teacher's soft label of every training position to Parquet, bucket by bucket."""

from pydantic import Field

from recsys_core.artifacts import Artifact
from recsys_core.data.soft_labels.factorized import describe
from recsys_core.distillation.labelling import label_bucket
from recsys_core.models.ensemble import load_recommender
from recsys_core.settings import Settings
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.prepared import Prepared


class SoftLabelConfig(Settings):
    """Which positions get a soft label."""

    newest: int | None = Field(
        default=None,
        ge=1,
        description="Label only as many windows of each user as hold this many newest positions; "
        "empty: all",
    )
    batch_size: int = Field(
        default=128, ge=1, le=65536, description="Windows that the teacher reads at once"
    )


@stage(output="soft_labels", version=4, libraries=("numpy", "polars", "pyarrow", "torch"))
def write_soft_labels(
    run: StageRun,
    config: SoftLabelConfig,
    *,
    max_length: int,
    prepared: Artifact,
    teacher: Artifact,
) -> Summary:
    """Write `labels/bucket-*.parquet`, `item_vectors.parquet` and `soft_labels.json`.

    A rerun after a kill continues at the first bucket without a file.

    Args:
        run: Folders, device and progress.
        config: Which positions are labelled.
        max_length: Longest window of the student, in events.
        prepared: Tonight's data.
        teacher: Reads the same windows as the student.
    """
    data = Prepared(prepared)
    model = load_recommender(teacher.folder).to(run.device)
    for i, bucket in enumerate(data.buckets):
        path = run.out / "labels" / bucket.name
        if not path.exists():
            label_bucket(
                model,
                bucket,
                path,
                max_length=max_length,
                newest=config.newest,
                batch_size=config.batch_size,
            )
        run.progress((i + 1) / len(data.buckets), f"bucket {i + 1} of {len(data.buckets)}")
    description = describe(
        run.out,
        teacher=teacher.key,
        item_index_sha256=data.split.item_index_sha256,
        trained_through=data.split.trained_through,
        item_vectors=model.item_vectors().detach().cpu().numpy(),
    )
    return description.model_dump(include={"layout", "rows", "dim", "bytes"})
