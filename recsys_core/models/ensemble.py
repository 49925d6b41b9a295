# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Several recommenders as one, whose logits are the mean of theirs.

States and item vectors concatenate: the dot product of two concatenations is the sum of the dot
products, so code that works with states and item vectors (soft labels, ranking) needs no change.
What is added to scores is the mean too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recsys_core.models.checkpoint import load_model
from recsys_core.models.context import Context
from recsys_core.models.recommender import Recommender


class Ensemble(nn.Module):
    """The mean of its members' logits.

    Args:
        members: At least one recommender, over the same items; sizes may differ.

    Raises:
        ValueError: The members know different numbers of items.
    """

    def __init__(self, members: Sequence[Recommender]) -> None:
        super().__init__()
        if len({member.n_items for member in members}) != 1:
            msg = f"Members must know the same items, found {[m.n_items for m in members]}."
            raise ValueError(msg)
        self.members = nn.ModuleList(members)
        self.n_items = members[0].n_items
        self.max_length = min(member.max_length for member in members)
        self.width = sum(member.width for member in members)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.recommenders[0].device

    @property
    def reads_context(self) -> bool:
        """Whether a member reads the kinds and times of events."""
        return any(member.reads_context for member in self.recommenders)

    @property
    def item_bias(self) -> Float[Tensor, " items_and_padding"] | None:
        """The mean of what the members add to the scores of items; None if none adds anything."""
        added = [member.item_bias for member in self.recommenders if member.item_bias is not None]
        return torch.stack(added).sum(dim=0) / len(self.members) if added else None

    @property
    def recommenders(self) -> list[Recommender]:
        """The members."""
        return cast("list[Recommender]", list(self.members))

    def item_vectors(self) -> Float[Tensor, "items_and_padding width"]:
        """The members' item vectors side by side; row 0 (padding) is zero."""
        return torch.cat([member.item_vectors() for member in self.recommenders], dim=1)

    def encode(
        self,
        history: Int[Tensor, "batch length"],
        item_vectors: Float[Tensor, "items_and_padding width"],
        context: Context | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """The members' states side by side, each divided by their number."""
        parts = item_vectors.split([member.width for member in self.recommenders], dim=1)
        states = [
            member.encode(history, part, context)
            for member, part in zip(self.recommenders, parts, strict=True)
        ]
        return torch.cat(states, dim=-1) / len(states)


AnyRecommender = Recommender | Ensemble


def member_folder(folder: Path, number: int) -> Path:
    """Folder of the n-th member (from 0); the first member lies in the folder itself."""
    return folder / f"member-{number}" if number else folder


def member_folders(folder: Path) -> list[Path]:
    """Folders of all members, at least one."""
    folders = [folder]
    while (path := member_folder(folder, len(folders))).exists():
        folders.append(path)
    return folders


def load_recommender(folder: Path) -> AnyRecommender:
    """Read a recommender, or an ensemble if there are several, in evaluation mode.

    Raises:
        FileNotFoundError: The folder holds no model.
    """
    members = [load_model(path) for path in member_folders(folder)]
    return members[0] if len(members) == 1 else Ensemble(members).eval()
