"""The recipe: sizes and training of teacher and student, chosen from the log itself.

A new log should not need our experience. The rules below are what held on the logs that we tried
(docs/benchmarks.md): how much there is to learn decides the depth, how long histories are decides
the window, how few events there are per item decides the dropout, and the cost of an epoch decides
how many of them fit into a night.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys_core.data.histories.read import training_items

_LONGEST = 200
_SHORTEST = 16
_NIGHT = 130_000_000
"""Events × layers × epochs of a teacher of width 64 that two cores train in about half an hour."""
_STEPS = 1_000
"""Gradient steps after which a teacher has about converged on small logs."""
_STUDENT_STEPS = 600
"""The same for a student that begins with its teacher's weights."""
_MANY_ITEMS = 20_000
_ALIKE = 0.25

Value = int | float | str


class LogStatistics(BaseModel):
    """What the recipe looks at.

    Attributes:
        n_users: Users with a training event.
        n_items: Items with a training event.
        n_events: Training events.
        length: The history length that nine of ten users don't exceed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_users: int
    n_items: int
    n_events: int
    length: int

    @classmethod
    def of(cls, buckets: Sequence[Path]) -> "LogStatistics":
        """Count the training events of bucket files, one file in memory at a time."""
        lengths: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        items = np.zeros(0, np.int32)
        for bucket in buckets:
            histories = training_items(bucket)
            lengths.append(histories.lengths)
            items = np.union1d(items, histories.values)
        of_users = np.concatenate(lengths)
        of_users = of_users[of_users > 0]
        return cls(
            n_users=len(of_users),
            n_items=len(items),
            n_events=int(of_users.sum()),
            length=int(np.quantile(of_users, 0.9)) if len(of_users) else 0,
        )

    def resembles(self, other: "LogStatistics") -> bool:
        """Whether no figure differs by more than a quarter of the other's."""
        pairs = zip(self.model_dump().values(), other.model_dump().values(), strict=True)
        return all(abs(mine - theirs) <= _ALIKE * theirs for mine, theirs in pairs)


class Choice(BaseModel):
    """A group of settings with the reason for them.

    Attributes:
        settings: Dotted name of a setting → its value.
        reason: One sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Mapping[str, Value]
    reason: str


def recipe(log: LogStatistics, *, trains_teacher: bool = True) -> list[Choice]:
    """Settings for a log, each group with its reason.

    Args:
        log: What decides.
        trains_teacher: Without a teacher of the night's own, the settings are the student's only,
            and it gets the steps of a network that begins with random weights.

    Example:
        >>> log = LogStatistics(n_users=6_000, n_items=3_400, n_events=990_000, length=390)
        >>> for choice in recipe(log)[:2]:
        ...     print(choice.reason)
        Nine of ten histories have at most 390 events, so windows hold 200.
        990,000 events of 165 per user: a teacher of 8 layers and a student of 3.
    """
    choices = list(_choices(log, trains_teacher=trains_teacher))
    return choices if trains_teacher else [_of_student(choice) for choice in choices]


def _choices(log: LogStatistics, *, trains_teacher: bool) -> Iterator[Choice]:
    window = min(_LONGEST, max(_SHORTEST, 2 ** round(np.log2(max(log.length, 1)))))
    yield _both(
        {"model.max_length": window, "model.positions": "rotary"},
        f"Nine of ten histories have at most {log.length} events, so windows hold {window}.",
    )
    per_user = log.n_events / max(log.n_users, 1)
    layers, student_layers = _depth(log, per_user)
    student = f"a student of {student_layers}"
    if trains_teacher:
        depths = f"a teacher of {layers} layers and {student}"
    else:
        depths = f"{student} layer{'s' if student_layers > 1 else ''}"
    yield Choice(
        settings={"teacher.model.n_layers": layers, "student.model.n_layers": student_layers},
        reason=f"{log.n_events:,} events of {per_user:.0f} per user: {depths}.",
    )
    per_item = log.n_events / max(log.n_items, 1)
    dropout = 0.2 if per_item >= 100 else 0.3 if per_item >= 30 else 0.5
    yield Choice(
        settings={"teacher.model.dropout": dropout, "student.model.dropout": dropout / 2},
        reason=f"{per_item:.0f} events per item: dropout of {dropout} in the teacher, half of it "
        "in the student, which learns from smoother targets.",
    )
    batch = 32 if log.n_users < 3_000 else 64 if log.n_users < 20_000 else 128
    yield _both(
        {"training.batch_size": batch},
        f"{log.n_users:,} users: batches of {batch}.",
    )
    width = 64 if log.n_items <= _MANY_ITEMS else 32
    yield Choice(
        settings={"student.model.embedding_dim": width, "student.model.ffn_dim": 2 * width},
        reason=f"{log.n_items:,} items: a student of width {width}, whose item table has "
        f"{log.n_items * width / 1e6:.1f} MB in 8 bits.",
    )
    steps = max(1, log.n_users // batch)
    budgets = [("student", student_layers, _STEPS, 10)]
    if trains_teacher:
        budgets = [("teacher", layers, _STEPS, 10), ("student", student_layers, _STUDENT_STEPS, 6)]
    for name, depth, wanted, least in budgets:
        affordable = max(4, _NIGHT // (depth * max(log.n_events, 1)))
        epochs = min(affordable, 40, max(least, -(-wanted // steps)))
        yield Choice(
            settings={f"{name}.training.epochs": epochs},
            reason=f"{steps:,} steps per epoch: at most {epochs} epochs of the {name}.",
        )


def _depth(log: LogStatistics, per_user: float) -> tuple[int, int]:
    """Layers of teacher and student: long dense histories carry deep networks, short ones don't."""
    if log.n_events >= 300_000 and per_user >= 50:
        return 8, 3
    if log.n_events >= 200_000 and per_user >= 15:
        return 4, 2
    return 2, 1


def _of_student(choice: Choice) -> Choice:
    settings = {name: v for name, v in choice.settings.items() if name.startswith("student.")}
    return choice.model_copy(update={"settings": settings})


def _both(settings: Mapping[str, Value], reason: str) -> Choice:
    """The same settings for teacher and student."""
    both = {
        f"{name}.{key}": value for name in ("teacher", "student") for key, value in settings.items()
    }
    return Choice(settings=both, reason=reason)
