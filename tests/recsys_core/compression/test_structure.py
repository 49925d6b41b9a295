"""How a student begins."""

from typing import cast

import pytest
import torch
from torch import nn

from recsys_core.compression.structure import initialise_from_teacher, pick_layers, truncated_svd
from recsys_core.models.ensemble import Ensemble
from recsys_core.models.fusion import Content
from recsys_core.models.recommender import ModelConfig, Recommender

N_ITEMS = 30
CONTENT = {"text": torch.eye(N_ITEMS + 1, 6)}
TEACHER = ModelConfig(
    embedding_dim=16, n_layers=4, n_heads=2, ffn_dim=12, max_length=10, dropout=0.1
)


def _model(seed: int, content: Content | None = None, **changes: int) -> Recommender:
    torch.manual_seed(seed)
    model = Recommender(N_ITEMS, TEACHER.model_copy(update=changes), content).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def _scores(model: Recommender) -> torch.Tensor:
    history = torch.tensor([[1, 5, 9, 30], [2, 2, 4, 7]])
    with torch.inference_mode():
        vectors = model.item_vectors()
        return model.encode(history, vectors) @ vectors.T


@pytest.mark.parametrize("content", [None, CONTENT], ids=["ids", "content"])
def test_the_same_layers_give_the_same_scores(content: Content | None) -> None:
    teacher, student = _model(0, content), _model(1, content)
    assert not torch.allclose(_scores(student), _scores(teacher))
    initialise_from_teacher(student, teacher)
    torch.testing.assert_close(_scores(student), _scores(teacher))


def test_a_student_without_content_begins_with_its_teachers() -> None:
    teacher, student = _model(0, CONTENT), _model(1)
    initialise_from_teacher(student, teacher)
    torch.testing.assert_close(_scores(student), _scores(teacher))


def test_a_shallower_student_begins_with_layers_over_the_whole_depth() -> None:
    teacher, student = _model(0), _model(1, n_layers=2, ffn_dim=8, max_length=6)
    own = student.blocks[0].state_dict()["ffn.up.weight"].clone()
    initialise_from_teacher(student, teacher)
    for block, layer in zip(student.blocks, (1, 3), strict=True):
        for name, tensor in block.state_dict().items():
            source = teacher.blocks[layer].state_dict()[name]
            assert tensor.shape != source.shape or torch.equal(tensor, source), name
    assert not torch.equal(student.blocks[0].state_dict()["ffn.up.weight"], own)
    assert student.position_embedding is not None
    assert teacher.position_embedding is not None
    assert torch.equal(student.position_embedding, teacher.position_embedding[:6])
    assert torch.equal(student.final_norm.weight, teacher.final_norm.weight)


def test_of_a_wider_swiglu_the_heaviest_channels_are_taken() -> None:
    teacher, student = _model(0, n_layers=1), _model(1, n_layers=1, ffn_dim=8)
    up = cast(nn.Linear, teacher.blocks[0].get_submodule("ffn.up"))
    with torch.no_grad():
        up.weight[[1, 5, 6, 11]] = 0.0  # of 12 channels, 8 are left
    initialise_from_teacher(student, teacher)
    torch.testing.assert_close(_scores(student), _scores(teacher))


def test_a_student_of_an_ensemble_begins_with_the_member_of_its_width() -> None:
    members = [_model(0, embedding_dim=8), _model(1), _model(2)]
    student = _model(3)
    initialise_from_teacher(student, Ensemble(members).eval())
    torch.testing.assert_close(_scores(student), _scores(members[1]))
    narrow = _model(3, embedding_dim=4, n_heads=1)
    initialise_from_teacher(narrow, Ensemble(members[1:]).eval())
    assert narrow.item_vectors().shape == (N_ITEMS + 1, 4)
    assert narrow.item_vectors()[1:].any(dim=1).all()


def test_a_deeper_student_takes_the_embeddings_only() -> None:
    teacher, student = _model(0, n_layers=1), _model(1, n_layers=2)
    before = student.blocks[0].state_dict()["attention.query.weight"].clone()
    initialise_from_teacher(student, teacher)
    torch.testing.assert_close(student.item_vectors(), teacher.item_vectors())
    assert torch.equal(student.blocks[0].state_dict()["attention.query.weight"], before)


def test_a_narrower_student_keeps_what_items_are_to_each_other() -> None:
    teacher, student = _model(0), _model(1, embedding_dim=8)
    with torch.no_grad():
        teacher.id_embedding[:, 8:] *= 1e-3
        mixed, _ = torch.linalg.qr(torch.randn(16, 16))
        teacher.id_embedding.copy_(teacher.id_embedding @ mixed)
    initialise_from_teacher(student, teacher)
    found, expected = student.item_vectors(), teacher.item_vectors()
    torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-3, rtol=1e-3)
    assert not found[0].any()


@pytest.mark.parametrize("width", [1, 3, 5, 6])
def test_truncation_is_the_best_approximation_of_its_rank(width: int) -> None:
    """Eckart and Young: the error of the best is the norm of the singular values left out."""
    vectors = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    narrow = truncated_svd(vectors, width)
    assert narrow.shape == (20, width)
    values = torch.linalg.svdvals(vectors)
    products, exact = narrow @ narrow.T, vectors @ vectors.T
    expected = values[width:].square().square().sum().sqrt()
    torch.testing.assert_close((products - exact).norm(), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(narrow.norm(dim=0), values[:width])


def test_truncation_of_fewer_rows_than_directions_is_exact() -> None:
    vectors = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    narrow = truncated_svd(vectors, 8)
    assert narrow.shape == (4, 8)
    torch.testing.assert_close(narrow @ narrow.T, vectors @ vectors.T)


@pytest.mark.parametrize("seed", range(5))
def test_the_sign_of_a_direction_is_fixed(seed: int) -> None:
    """Else another version of LAPACK could begin another student."""
    vectors = torch.randn(20, 6, generator=torch.Generator().manual_seed(seed)).double()
    narrow = truncated_svd(vectors, 3)
    directions = torch.linalg.lstsq(vectors, narrow).solution
    largest = directions.abs().argmax(dim=0, keepdim=True)
    assert (directions.gather(0, largest) > 0).all()


@pytest.mark.parametrize(
    ("n_layers", "n_teacher_layers", "layers"),
    [(1, 1, [0]), (1, 4, [3]), (2, 4, [1, 3]), (3, 4, [0, 1, 3]), (4, 4, [0, 1, 2, 3])],
)
def test_layers_are_spread_evenly(n_layers: int, n_teacher_layers: int, layers: list[int]) -> None:
    assert pick_layers(n_layers, n_teacher_layers) == layers


def test_mistakes_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="know 30 and 31 items"):
        initialise_from_teacher(_model(0), Recommender(31, TEACHER, None))
    with pytest.raises(ValueError, match=r"Set student\.model\.embedding_dim no larger"):
        initialise_from_teacher(_model(0, embedding_dim=32), _model(0))
