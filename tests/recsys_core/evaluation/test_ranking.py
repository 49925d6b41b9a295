import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.histories.cases import Cases
from recsys_core.evaluation.ranking import rank_targets, rank_with_biases


def cases_of(targets, histories):
    n = len(targets)
    return Cases(
        user_id=[str(row) for row in range(n)],
        positions=np.array([len(history) for history in histories], np.int32),
        targets=np.array(targets, np.int32),
        histories=[np.array(history, np.int32) for history in histories],
        train_lengths=np.zeros(n, np.int32),
        dropped={},
    )


def rank_one(scores, target, history=(), candidates=None, exclude_seen=True):
    """Rank of `target` where item 1, 2, … have these scores."""
    row = np.array([[9.0, *scores]], np.float32)
    mask = np.ones(len(scores) + 1, bool) if candidates is None else np.array([False, *candidates])
    mask[0] = False
    cases = cases_of([target], [history])
    return rank_targets(lambda _: row, cases, mask, exclude_seen=exclude_seen).item()


def test_rank_counts_the_candidates_with_higher_scores():
    assert rank_one([0.1, 0.4, 0.3, 0.2], target=2) == 1
    assert rank_one([0.1, 0.4, 0.3, 0.2], target=4) == 3


def test_several_biases_are_added_to_one_scoring():
    asked = []

    def ranker(histories):
        asked.append(len(histories))
        return np.array([[9.0, 0.1, 0.4, 0.3]], np.float32)

    ranks = rank_with_biases(
        ranker,
        cases_of([3], [[1]]),
        np.array([False, True, True, True]),
        biases=(None, np.array([0, 0, 0, 0.2], np.float32), np.array([0, 1, 0, 0], np.float32)),
        exclude_seen=False,
    )
    assert ranks.tolist() == [[2], [1], [3]]
    assert asked == [1]


def test_nothing_is_added_after_an_empty_history():
    ranks = rank_with_biases(
        lambda histories: np.repeat(np.array([[9.0, 0.1, 0.4, 0.3]], np.float32), 2, axis=0),
        cases_of([3, 3], [[], [1]]),
        np.array([False, True, True, True]),
        biases=(np.array([0, 0, 0, 1], np.float32),),
        exclude_seen=True,
    )
    assert ranks.tolist() == [[2, 1]]


def test_ties_rank_the_target_last_among_equals():
    assert rank_one([1, 1, 1, 1], target=2) == 4
    assert rank_one([2, 1, 1, 0], target=3) == 3


def test_seen_items_and_non_candidates_do_not_count():
    assert rank_one([4, 3, 2, 1], target=3, history=[1, 1]) == 2
    assert rank_one([4, 3, 2, 1], target=3, history=[1], exclude_seen=False) == 3
    assert rank_one([4, 3, 2, 1], target=3, candidates=[True, False, True, True]) == 2


def test_the_padding_column_never_counts():
    assert rank_one([1.0], target=1) == 1


@pytest.mark.parametrize("absent", [-np.inf, np.nan])
def test_an_absent_target_ranks_behind_the_catalogue(absent):
    assert rank_one([absent, 0.5, -np.inf], target=1, history=[2]) == 4


def test_nan_elsewhere_counts_as_better():
    assert rank_one([0.9, np.nan, 0.1], target=1) == 2


def test_an_item_that_the_model_lacks_is_no_rival():
    assert rank_one([0.1, -np.inf, -np.inf], target=1) == 1


def test_a_ranker_with_another_catalogue_is_refused():
    cases = cases_of([1], [[]])
    with pytest.raises(ValueError, match=r"1 histories × 4 items .* shape \(1, 3\)"):
        rank_targets(
            lambda _: np.zeros((1, 3), np.float32), cases, np.ones(4, bool), exclude_seen=True
        )


def test_no_cases_have_no_ranks():
    def never(_):
        raise AssertionError("there is nothing to score")

    assert rank_targets(never, cases_of([], []), np.ones(4, bool), exclude_seen=True).size == 0


@given(data=st.data())
def test_ranks_equal_the_plain_loop_whatever_the_batch_size(data):
    n_items, n_cases = 6, data.draw(st.integers(1, 7))
    cell = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.nan])
    items = st.integers(1, n_items)
    scores = np.array(
        data.draw(
            st.lists(st.lists(cell, min_size=7, max_size=7), min_size=n_cases, max_size=n_cases)
        ),
        np.float32,
    )
    targets = data.draw(st.lists(items, min_size=n_cases, max_size=n_cases))
    histories = [
        [item for item in data.draw(st.lists(items, max_size=4)) if item != target]
        for target in targets
    ]
    candidates = np.array([False, *data.draw(st.lists(st.booleans(), min_size=6, max_size=6))])
    cases = cases_of(targets, histories)
    done = 0

    def ranker(batch):
        nonlocal done
        done += len(batch)
        return scores[done - len(batch) : done]

    batch_size = data.draw(st.integers(1, 8))
    ranks = rank_targets(ranker, cases, candidates, exclude_seen=True, batch_size=batch_size)
    for row, target in enumerate(targets):
        own = scores[row, target]
        rivals = [
            scores[row, item]
            for item in range(1, n_items + 1)
            if candidates[item] and item != target and item not in histories[row]
        ]
        ahead = sum(not rival < own for rival in rivals)
        assert ranks[row] == (n_items + 1 if np.isnan(own) or np.isneginf(own) else 1 + ahead)
