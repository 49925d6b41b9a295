import bz2
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.serving import scorer as scorer_module
from recsys_core.serving.folder import write_item_ids
from recsys_core.serving.scorer import Scorer

IDS = [f"i{idx}" for idx in range(40, 0, -1)]
HISTORY = ["i3", "i17", "i9"]


@pytest.fixture(scope="module")
def scorer(served_folder: Path) -> Scorer:
    return Scorer(served_folder, intra_op_num_threads=1)


def best(scorer: Scorer, history: list[str], without: list[str]) -> list[str]:
    """All items by their raw score."""
    order = np.argsort(-scorer.scores([history])[0], kind="stable")
    return [IDS[column] for column in order if IDS[column] not in without]


def test_recommendations_are_the_best_scores_without_the_history(scorer: Scorer) -> None:
    (answer,) = scorer.recommend([HISTORY], k=5)
    assert answer.item_ids == best(scorer, HISTORY, without=HISTORY)[:5]
    scores = scorer.scores([HISTORY])[0]
    assert answer.scores == [scores[IDS.index(item_id)] for item_id in answer.item_ids]
    assert answer.contributions is None


def test_seen_items_are_recommended_by_a_model_that_was_trained_to(
    served_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(served_folder, tmp_path / "repeats")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "exclude_seen": False}))
    scorer = Scorer(folder)
    for asked in (None, False):
        (answer,) = scorer.recommend([HISTORY], k=40, exclude_seen=asked)
        assert answer.item_ids == best(scorer, HISTORY, without=[])
    (answer,) = scorer.recommend([HISTORY], k=40, exclude_seen=True)
    assert answer.item_ids == best(scorer, HISTORY, without=HISTORY)


def test_a_model_that_never_learned_to_score_seen_items_refuses_to(scorer: Scorer) -> None:
    assert scorer.recommend([HISTORY], exclude_seen=True) == scorer.recommend([HISTORY])
    with pytest.raises(ValueError, match="exclude_seen can't be false: this model was trained"):
        scorer.recommend([HISTORY], exclude_seen=False)


@pytest.mark.parametrize("history", [[], ["unknown"], ["unknown", "i99"]])
def test_no_known_item_means_popularity(scorer: Scorer, history: list[str]) -> None:
    (answer,) = scorer.recommend([history], k=3)
    assert answer.item_ids == ["i40", "i39", "i38"]
    assert answer.scores == [40, 39, 38]


def test_unknown_ids_change_nothing(scorer: Scorer) -> None:
    noisy = ["?", *HISTORY[:2], "i0", *HISTORY[2:], "zzz"]
    assert scorer.recommend([noisy]) == scorer.recommend([HISTORY])


def test_the_newest_known_items_count_and_all_seen_ones_are_excluded(scorer: Scorer) -> None:
    long = [*IDS[:12], "?", "?"]
    np.testing.assert_array_equal(scorer.scores([long]), scorer.scores([IDS[4:12]]))
    (answer,) = scorer.recommend([long], k=40)
    assert set(answer.item_ids) == set(IDS[12:])


def test_order_matters(scorer: Scorer) -> None:
    assert not np.allclose(scorer.scores([HISTORY]), scorer.scores([HISTORY[::-1]]))


def test_exclude_and_allow(scorer: Scorer) -> None:
    ranking = best(scorer, HISTORY, without=HISTORY)
    allowed = [ranking[20], "no such item", ranking[3], HISTORY[0], ranking[30]]
    answers = scorer.recommend(
        [HISTORY] * 5,
        k=2,
        exclude=[None, [ranking[0], "?"], None, [ranking[3]], None],
        allow=[None, None, allowed, allowed, []],
    )
    assert [answer.item_ids for answer in answers] == [
        ranking[:2],
        ranking[1:3],
        [ranking[3], ranking[20]],
        [ranking[20], ranking[30]],
        [],
    ]
    scores = scorer.scores([HISTORY])[0]
    for answer in answers:
        expected = [scores[IDS.index(item_id)] for item_id in answer.item_ids]
        assert answer.scores == pytest.approx(expected, rel=1e-6)


def test_fewer_items_than_asked_for(scorer: Scorer) -> None:
    (answer,) = scorer.recommend([HISTORY], k=1000)
    assert answer.item_ids == best(scorer, HISTORY, without=HISTORY)
    (answer,) = scorer.recommend([HISTORY], k=1000, exclude=[IDS])
    assert answer.item_ids == []
    assert answer.scores == []


@given(st.lists(st.lists(st.sampled_from([*IDS, "?"]), max_size=12), max_size=9))
def test_a_batch_answers_like_one_by_one(scorer: Scorer, histories: list[list[str]]) -> None:
    together = scorer.recommend(histories, k=4)
    assert len(together) == len(histories)
    for history, answer in zip(histories, together, strict=True):
        (alone,) = scorer.recommend([history], k=4)
        assert answer.scores == pytest.approx(alone.scores, abs=1e-4)
        assert not set(answer.item_ids) & set(history)
    for scores, history in zip(scorer.scores(histories), histories, strict=True):
        np.testing.assert_allclose(scores, scorer.scores([history])[0], atol=1e-4)


def test_many_histories_are_answered_in_their_order(scorer: Scorer) -> None:
    """So many that they are scored in several batches."""
    histories = [IDS[idx : idx + idx % 7] for idx in range(30)]
    expected = scorer.recommend(histories, k=3)
    answers = scorer.recommend(histories * 20, k=3)
    assert [a.item_ids for a in answers] == [a.item_ids for a in expected] * 20


def test_contributions_are_what_leaving_an_item_out_takes_away(scorer: Scorer) -> None:
    history = ["i3", "?", "i17", "i3", "i9"]
    (answer,) = scorer.recommend([history], k=3, explain=True)
    assert answer.contributions is not None
    with_all = scorer.scores([history])[0]
    for item_id, contributions in zip(answer.item_ids, answer.contributions, strict=True):
        assert list(contributions) == ["i3", "i17", "i9"]
        for left_out, value in contributions.items():
            rest = [item for item in history if item != left_out]
            without = scorer.scores([rest])[0]
            column = IDS.index(item_id)
            assert value == pytest.approx(with_all[column] - without[column], abs=1e-4)


def test_nothing_explains_popularity(scorer: Scorer) -> None:
    (answer,) = scorer.recommend([[]], k=2, explain=True)
    assert answer.contributions == [{}, {}]


def test_no_histories_no_answers(scorer: Scorer) -> None:
    assert scorer.recommend([]) == []
    assert scorer.scores([]).shape == (0, 40)


def test_arrays_do_as_lists(scorer: Scorer) -> None:
    arrays = [np.array(HISTORY, dtype=object), np.array(HISTORY)]
    assert scorer.recommend(arrays) == scorer.recommend([HISTORY, HISTORY])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"histories": "i1"}, r"history must be one list .* found 'i1' \(str\)"),
        ({"histories": ["i1"]}, r"history of input 0 must be a list .* found 'i1' \(str\)"),
        ({"histories": [[], None]}, r"history of input 1 must be a list .* \(NoneType\)"),
        ({"histories": [["i1", 7]]}, r"history of input 0 holds '7' \(int\); item ids are strings"),
        ({"histories": [[]], "k": 0}, r"k must be a whole number of at least 1, found '0'"),
        ({"histories": [[]], "k": 2.5}, r"k must be .* '2\.5' \(float\)"),
        ({"histories": [[]], "k": True}, r"k must be .* \(bool\)"),
        ({"histories": [[]], "allow": [["i1"], None]}, r"allow must hold .* each of 1 inputs"),
        ({"histories": [[]], "exclude": "i1"}, r"exclude must hold a list of item ids or None"),
        ({"histories": [[]], "exclude": [[1]]}, r"exclude of input 0 holds '1' \(int\)"),
    ],
)
def test_wrong_arguments_are_sentences(
    scorer: Scorer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scorer.recommend(**arguments)


def test_damaged_folders_are_refused(served_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a served model"):
        Scorer(tmp_path)
    folder = tmp_path / "served"
    shutil.copytree(served_folder, folder)
    write_item_ids(folder, IDS[:-1])
    with pytest.raises(ValueError, match="39 item ids for a graph that scores 40"):
        Scorer(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 3}))
    with pytest.raises(ValueError, match=r"has format 3, expected one of \[1, 2\]"):
        Scorer(folder)
    (folder / "model.onnx").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is missing"):
        Scorer(folder)


def _truncated(packed: bytes) -> bytes:
    return packed[:-1]


def _flipped(packed: bytes) -> bytes:
    return packed[:40] + bytes([packed[40] ^ 1]) + packed[41:]


def _no_archive(packed: bytes) -> bytes:
    return json.dumps(IDS).encode()


def _no_json(packed: bytes) -> bytes:
    return bz2.compress(b"i1\ni2")


def _bomb(packed: bytes) -> bytes:
    return bz2.compress(b" " * 1_000_000 + bz2.decompress(packed))


@pytest.mark.parametrize("damage", [_truncated, _flipped, _no_archive, _no_json, _bomb])
def test_damaged_item_ids_are_refused(
    served_folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = shutil.copytree(served_folder, tmp_path / "served")
    path = folder / "item_ids.json.bz2"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"item_ids\.json\.bz2 is damaged \(.+\): fetch the"):
        Scorer(folder)


def test_item_ids_hold_any_character(served_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(served_folder, tmp_path / "served")
    hostile = ["", "a\nb", '"', "\\", "é", "東京", "\0", "💥", *IDS[8:]]
    write_item_ids(folder, hostile)
    assert Scorer(folder).item_ids == hostile


def test_a_folder_of_the_first_format_answers_as_before(
    served_folder: Path, tmp_path: Path, scorer: Scorer
) -> None:
    folder = shutil.copytree(served_folder, tmp_path / "old")
    (folder / "item_ids.json.bz2").unlink()
    (folder / "item_ids.json").write_text(json.dumps(IDS, indent=2))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 1}))
    assert Scorer(folder).recommend([HISTORY, []]) == scorer.recommend([HISTORY, []])


def test_the_file_stands_alone(served_folder: Path, tmp_path: Path) -> None:
    shutil.copy(str(scorer_module.__file__), tmp_path / "alone.py")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import alone;"
        "print(alone.Scorer(sys.argv[2]).recommend([['i3', 'i17', 'i9']], k=2)[0].item_ids);"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'recsys_core', 'onnx'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(served_folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    expected = Scorer(served_folder).recommend([HISTORY], k=2)[0].item_ids
    assert done.stdout.splitlines() == [str(expected), "[]"]
