import numpy as np
import polars as pl

from recsys_core.models.content import content_features, embedding_features

TITLES = ["Star Wars", "Star Trek", None, "", "Größe"]
CATEGORIES = [["Sci-Fi"], ["sci-fi"], ["Drama"], [], []]


def test_rows_have_length_one_or_no_content() -> None:
    features = content_features(TITLES, CATEGORIES, n_features=64)
    assert features.shape == (6, 64)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [0, 1, 1, 1, 0, 1], rtol=1e-6)


def test_what_items_share_makes_them_alike_and_rare_words_weigh_more() -> None:
    features = content_features(TITLES, CATEGORIES, n_features=4096)
    alike = features @ features.T
    assert alike[1, 2] > 0.2
    assert alike[1, 3] == alike[1, 5] == 0
    weights = sorted(np.abs(features[1][features[1] != 0]))
    common, rare = np.log(1 + 5 / 2), np.log(1 + 5)
    norm = np.sqrt(2 * common**2 + rare**2)
    np.testing.assert_allclose(weights, [common / norm, common / norm, rare / norm], rtol=1e-6)


def test_repeated_words_and_their_order_do_not_count() -> None:
    first, second = (
        content_features([title, "x"], [[], []], n_features=32)[1] for title in ("a b b", "B  a!")
    )
    np.testing.assert_array_equal(first, second)


def test_nothing_known_gives_zeros() -> None:
    assert not content_features([None, None], [[], []], n_features=4).any()
    assert content_features([], [], n_features=4).shape == (1, 4)


def test_a_title_word_is_no_category() -> None:
    features = content_features(["drama", None], [[], ["drama"]], n_features=4096)
    assert features[1] @ features[2] == 0


def test_embeddings_are_rows_of_length_one_or_none() -> None:
    column = pl.Series("image", [[3.0, 4.0], None, [0.0, 0.0]], dtype=pl.List(pl.Float32))
    features = embedding_features(column)
    np.testing.assert_allclose(features, [[0, 0], [0.6, 0.8], [0, 0], [0, 0]])
    none = pl.Series("image", [None, None], dtype=pl.List(pl.Float32))
    assert embedding_features(none).shape == (3, 0)
