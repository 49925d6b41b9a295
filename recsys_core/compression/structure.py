# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Structure: a smaller network that begins as much of the teacher as fits into it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_core.models.ensemble import AnyRecommender
from recsys_core.models.recommender import Recommender


def initialise_from_teacher(student: Recommender, teacher: AnyRecommender) -> None:
    """Set a student's initial weights from its teacher's, in place.

    Item vectors are the teacher's, rotated and cut to the student's width by a truncated SVD (the
    best approximation of all their dot products). Where the widths agree the rest is copied too:
    positions, final norm and, of the teacher's layers, ones spread evenly over its depth.

    Args:
        student: Not wider than the teacher, over the same items.
        teacher: Trained; of an ensemble only the item vectors are taken over.

    Raises:
        ValueError: The student is wider than the teacher, or over other items.
    """
    if student.n_items != teacher.n_items:
        msg = f"Student and teacher know {student.n_items} and {teacher.n_items} items."
        raise ValueError(msg)
    width, teacher_width = student.width, teacher.width
    if width > teacher_width:
        msg = (
            f"A student of width {width} can't begin as its teacher of width {teacher_width}. "
            "Set student.model.embedding_dim no larger than teacher.model.embedding_dim."
        )
        raise ValueError(msg)
    with torch.no_grad():
        vectors = teacher.item_vectors()
        if width < teacher_width:
            vectors = truncated_svd(vectors, width)
        student.id_embedding.copy_(vectors)
        if student.content is not None:
            student.content.clear()
        if width == teacher_width and isinstance(teacher, Recommender):
            _copy_network(student, teacher)


def truncated_svd(vectors: Float[Tensor, "items wide"], width: int) -> Float[Tensor, "items width"]:
    """The first `width` principal directions of the rows: U·S of the SVD, signs fixed.

    Fewer rows than `width` span fewer directions; the rest is zero.
    """
    _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
    directions = directions[:width]
    largest = directions.abs().argmax(dim=1, keepdim=True)
    narrow = vectors @ (directions * directions.gather(1, largest).sign()).T
    return F.pad(narrow, (0, width - narrow.shape[1]))


def pick_layers(n_layers: int, n_teacher_layers: int) -> list[int]:
    """Which teacher layers a student begins with: spread evenly, the last one always."""
    return [((i + 1) * n_teacher_layers) // n_layers - 1 for i in range(n_layers)]


def _copy_network(student: Recommender, teacher: Recommender) -> None:
    if student.position_embedding is not None and teacher.position_embedding is not None:
        length = min(student.config.max_length, teacher.config.max_length)
        student.position_embedding[:length] = teacher.position_embedding[:length]
    student.final_norm.load_state_dict(teacher.final_norm.state_dict())
    if student.config.n_layers > teacher.config.n_layers:
        return
    for block, layer in zip(
        student.blocks,
        pick_layers(student.config.n_layers, teacher.config.n_layers),
        strict=True,
    ):
        source = teacher.blocks[layer].state_dict()
        fitting = {
            name: source[name]
            for name, tensor in block.state_dict().items()
            if source[name].shape == tensor.shape
        }
        block.load_state_dict(fitting, strict=False)
