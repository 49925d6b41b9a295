"""A made-up check of the teacher, which is worse than its baseline on some slices."""

from recsys_core.evaluation.teacher_slices import BASELINES, PositionSlice, SliceComparison
from tasks.contracts.teacher import Lineage, TeacherCheck


def made_up_check(
    *worse: PositionSlice, teacher: str = "teacher-key", cold_user_events: int = 10
) -> TeacherCheck:
    lineage = Lineage(
        mode="full",
        parent=None,
        trained_through=None,
        full_trained_through=None,
        transferred_from=None,
        networks="networks",
        n_items=16,
        item_index_sha256="index",
    )
    return TeacherCheck(
        teacher=teacher,
        ndcg_at_10={"teacher": 0.2, "popularity": 0.05, "item_knn": 0.1},
        cold_user_events=cold_user_events,
        slices=tuple(_comparison(name, worse=name in worse) for name in BASELINES),
        objections=[],
        lineage=lineage,
        version=1,
    )


def _comparison(name: PositionSlice, *, worse: bool) -> SliceComparison:
    mine, other = (0.03, 0.04) if worse else (0.04, 0.03)
    return SliceComparison(
        slice=name,
        baseline=BASELINES[name],
        n_cases=200,
        n_users=100,
        teacher_ndcg_at_10=mine,
        baseline_ndcg_at_10=other,
        difference=mine - other,
        high=mine - other + 0.005,
        worse=worse,
        sentence=f"On {name} the teacher has {mine}, its baseline {other}.",
    )
