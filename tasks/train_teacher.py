"""Train the teacher: one large network or several, on what really came next."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from recsys_core.artifacts import Artifact, read_json
from recsys_core.models.ensemble import load_teacher, member_folder
from recsys_core.settings import Progress
from tasks.prepared import Prepared
from tasks.stage import StageRun, Summary, stage
from tasks.training import NetworkConfig, train_without_teacher

_SEED_STEP = 1000  # between the members' seeds, so that teachers of seeds 1, 2, … share none


class TeacherConfig(NetworkConfig):
    """The teacher's network and how it is trained; several of them make an ensemble."""

    n_seeds: int = Field(
        default=1, ge=1, le=32, description="Networks of this size, trained from different seeds"
    )
    others: tuple[NetworkConfig, ...] = Field(
        default=(), description="Further networks, of other sizes"
    )

    def members(self) -> list[NetworkConfig]:
        """The settings of each member."""
        seed = self.training.seed
        seeds = [seed + _SEED_STEP * i for i in range(self.n_seeds)]
        alike = NetworkConfig.model_validate(self.model_dump(exclude={"n_seeds", "others"}))
        return [*(with_seed(alike, seed) for seed in seeds), *self.others]


def with_seed(network: NetworkConfig, seed: int) -> NetworkConfig:
    """The same settings, with another seed."""
    training = network.training.model_copy(update={"seed": seed})
    return network.model_copy(update={"training": training})


@stage
def train_teacher(run: StageRun, config: TeacherConfig, *, prepared: Artifact) -> Summary:
    """Write `model.safetensors`, `model.json` and `curve.json`.

    Of an ensemble the first member's files lie there and the others' in `member-1/` and so on. A
    rerun after a kill goes on with the member that was being trained.
    """
    members = config.members()
    summaries: list[Summary] = []
    for number, member in enumerate(members):
        out = member_folder(run.out, number)
        out.mkdir(exist_ok=True)
        part = replace(
            run,
            out=out,
            scratch=run.scratch / f"member-{number}",
            progress=_part(run.progress, number, len(members)),
        )
        summaries.append(_member(part, member, prepared))
    if len(members) == 1:
        return summaries[0]
    data = Prepared(prepared)
    validate = data.validator(config.training.validation_cases)
    return _together(summaries, validate(load_teacher(run.out)))


def _member(run: StageRun, config: NetworkConfig, prepared: Artifact) -> Summary:
    finished = run.out / "summary.json"
    if finished.exists():
        return read_json(finished)
    return train_without_teacher(run, config, prepared)


def _part(progress: Progress, number: int, n_parts: int) -> Progress:
    """Progress of one of several equal parts."""

    def report(fraction: float, message: str) -> None:
        text = message if n_parts == 1 else f"network {number + 1} of {n_parts}, {message}"
        progress((number + fraction) / n_parts, text)

    return report


def _together(summaries: Sequence[Summary], ndcg: float) -> Summary:
    return {
        "parameters": sum(summary["parameters"] for summary in summaries),
        "epochs": sum(summary["epochs"] for summary in summaries),
        "members": [summary["validation_ndcg_at_10"] for summary in summaries],
        "validation_ndcg_at_10": ndcg,
    }
