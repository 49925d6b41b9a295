# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Structure: initialise a smaller network with the parts of the teacher that fit."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recsys_core.models.ensemble import AnyRecommender, Ensemble
from recsys_core.models.recommender import Recommender


def initialise_from_teacher(student: Recommender, teacher: AnyRecommender) -> None:
    """Initialise a student's weights from its teacher, in place.

    Item vectors are the teacher's, reduced to the student's width by a truncated SVD (the best
    approximation of all their dot products). If the widths are equal, positions, the final norm and
    layers spread evenly over the teacher's depth are copied too, with the heaviest channels of a
    wider SwiGLU. Between attention, GRU and pooling, blocks share only their SwiGLUs. A block that
    runs several times begins like one that runs once.

    Args:
        student: Not wider than the teacher, over the same items.
        teacher: A trained recommender. Of an ensemble the first member of the student's width is
            copied; without one, the concatenated item vectors are used.

    Raises:
        ValueError: The student is wider than the teacher, or it knows other items.
    """
    if student.n_items != teacher.n_items:
        msg = f"Student and teacher know {student.n_items} and {teacher.n_items} items."
        raise ValueError(msg)
    if isinstance(teacher, Ensemble):
        alike = (member for member in teacher.recommenders if member.width == student.width)
        teacher = next(alike, teacher)
    width, teacher_width = student.width, teacher.width
    if width > teacher_width:
        msg = (
            f"A student of width {width} can't start from a teacher of width {teacher_width}. "
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
    """Coordinates of the rows in their first `width` principal directions: U·S of the SVD.

    Signs are fixed. If there are fewer rows than `width`, the remaining columns are zero.

    Example:
        >>> vectors = torch.tensor([[3.0, 0.0, 4.0], [3.0, 0.0, 4.0]])
        >>> truncated_svd(vectors, 1).tolist()
        [[5.0], [5.0]]
    """
    _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
    directions = directions[:width]
    largest = directions.abs().argmax(dim=1, keepdim=True)
    narrow = vectors @ (directions * directions.gather(1, largest).sign()).T
    return F.pad(narrow, (0, width - narrow.shape[1]))


def pick_layers(n_layers: int, n_teacher_layers: int) -> list[int]:
    """The teacher layers that a student starts from: spread evenly, the last layer included.

    Example:
        >>> pick_layers(2, 8)
        [3, 7]
    """
    return [((i + 1) * n_teacher_layers) // n_layers - 1 for i in range(n_layers)]


def _copy_network(student: Recommender, teacher: Recommender) -> None:
    if student.position_embedding is not None and teacher.position_embedding is not None:
        length = min(student.config.max_length, teacher.config.max_length)
        student.position_embedding[:length] = teacher.position_embedding[:length]
    student.final_norm.load_state_dict(teacher.final_norm.state_dict())
    layers = teacher.layers
    if student.config.n_layers > len(layers):
        return
    picked = pick_layers(student.config.n_layers, len(layers))
    for block, layer in zip(student.blocks, picked, strict=True):
        source = layers[layer].state_dict()
        if student.config.ffn_dim < teacher.config.ffn_dim:
            source |= _heaviest_channels(source, student.config.ffn_dim)
        fitting = {
            name: source[name]
            for name, tensor in block.state_dict().items()
            if name in source and source[name].shape == tensor.shape
        }
        block.load_state_dict(fitting, strict=False)


def _heaviest_channels(block: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """The weights of the SwiGLU channels with the largest product of norms, in their old order."""
    axes = {"ffn.gate.weight": 0, "ffn.up.weight": 0, "ffn.down.weight": 1}
    norms = [block[name].norm(dim=1 - axis) for name, axis in axes.items()]
    heaviest = torch.stack(norms).prod(dim=0).argsort(descending=True, stable=True)[:keep]
    channels = heaviest.sort().values
    return {name: block[name].index_select(axis, channels) for name, axis in axes.items()}
