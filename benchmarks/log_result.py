"""What a night on a public log has reached, as a sentence, rows of a table, and figures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from recsys_core.evaluation.metrics import mean_per_user, ndcg_at_k, recall_at_k
from recsys_core.evaluation.statistics import Interval, paired_difference

SHIPS = "compressed"


@dataclass(frozen=True)
class LogResult:
    """What a night on a log has reached.

    Attributes:
        log: Its name.
        failure: Why the night stopped; None: it finished.
        seconds: Duration of the night, without stages that had finished before.
        counts: Users, items, and events of each range.
        recipe: What the recipe chose, with its reasons.
        by_user: By model, the users' NDCG@10 and Recall@10, all in one order.
        settings: By baseline, the settings that were tuned.
        teacher_on_validation: NDCG@10 on which the teacher's training was stopped.
        verdict: The gate's sentence.
    """

    log: str
    failure: str | None
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)
    recipe: Mapping[str, str] = field(default_factory=dict)
    by_user: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    teacher_on_validation: float | None = None
    verdict: str | None = None

    def means(self) -> dict[str, tuple[float, float]]:
        """NDCG@10 and Recall@10 by model, networks first."""
        return {
            model: values.select(pl.mean("ndcg", "recall")).row(0)
            for model, values in self.by_user.items()
        }

    def best_baseline(self) -> str | None:
        """The baseline that ranks best."""
        means = self.means()
        return max(self.settings, key=lambda name: means[name][0], default=None)

    def over_baseline(self) -> Interval | None:
        """What ships minus the best baseline, as a share of the baseline's NDCG@10."""
        best = self.best_baseline()
        if best is None or SHIPS not in self.by_user:
            return None
        mine, other = (self.by_user[name]["ndcg"].to_numpy() for name in (SHIPS, best))
        return Interval(*(value / other.mean() for value in paired_difference(mine, other)))

    def figures(self) -> dict[str, Any]:
        """The figures for the JSON file."""
        prefix = self.log.removeprefix("amazon-").replace("-", "_")
        means, best, over = self.means(), self.best_baseline(), self.over_baseline()
        return {
            f"{prefix}_ndcg_at_10": means[SHIPS][0] if SHIPS in means else None,
            f"{prefix}_best_baseline": means[best][0] if best else None,
            f"{prefix}_over_baseline": 1 + over.mean if over else None,
            f"{prefix}_interval_low": over.low if over else None,
            self.log: {
                "failure": self.failure,
                "verdict": self.verdict,
                "seconds": self.seconds,
                "counts": dict(self.counts),
                "recipe": dict(self.recipe),
                "models": {
                    model: {"ndcg_at_10": ndcg, "recall_at_10": recall}
                    for model, (ndcg, recall) in means.items()
                },
                "tuned": dict(self.settings),
                "teacher_on_validation": self.teacher_on_validation,
            },
        }

    def rows(self) -> Iterator[list[object]]:
        """Rows of the table: one per model, or the failure."""
        if self.teacher_on_validation is not None and "teacher" not in self.by_user:
            yield [self.log, "teacher, on validation", self.teacher_on_validation, None, None]
        for model, (ndcg, recall) in self.means().items():
            tuned = self.settings.get(model, {})
            shown = ", ".join(
                f"{name} {'all' if value is None else value}" for name, value in tuned.items()
            )
            yield [self.log, model, ndcg, recall, shown or None]
        if not self.by_user:
            yield [self.log, "none", None, None, None]

    def sentence(self) -> str:
        """What came out, in words."""
        counts = ", ".join(f"{n:,} {name}" for name, n in self.counts.items())
        lines = [f"{self.log}: {counts or 'nothing prepared'}; {self.seconds:.0f} seconds."]
        lines += [f"Recipe: {reason} ({names})" for names, reason in self.recipe.items()]
        best, over = self.best_baseline(), self.over_baseline()
        if self.failure:
            lines.append(f"The night stopped: {self.failure}")
        if best and over:
            lines.append(
                f"What ships reaches {1 + over.mean:.3f} of {best}, the best baseline: "
                f"{over.mean:+.1%}, between {over.low:+.1%} and {over.high:+.1%}."
            )
        if self.verdict:
            lines.append(f"Gate: {self.verdict}")
        return "\n  ".join(lines)


def values_by_user(ranks: pl.DataFrame, model: str) -> pl.DataFrame:
    """`ndcg` and `recall` of each user at 10, in the order of user ids."""
    users, of_model = ranks["user_id"].to_list(), ranks[f"rank_{model}"].to_numpy()
    return pl.DataFrame(
        {
            "ndcg": mean_per_user(ndcg_at_k(of_model, 10), users),
            "recall": mean_per_user(recall_at_k(of_model, 10), users),
        }
    )
