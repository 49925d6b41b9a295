# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Several recommenders as one, whose logits are the mean of theirs.

States and item vectors concatenate: the dot product of two concatenations is the sum of the dot
products, so code that works with states and item vectors (soft labels, ranking) needs no change.
An ensemble has an item bias of its own; those of its members don't count.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
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

    item_bias: Float[Tensor, " items_and_padding"] | None
    """See `Recommender.item_bias`."""

    def __init__(self, members: Sequence[Recommender]) -> None:
        super().__init__()
        self.register_buffer("item_bias", None, persistent=False)
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


_BIAS_FILE = "ensemble.safetensors"

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
    if len(members) == 1:
        return members[0]
    ensemble = Ensemble(members)
    if (folder / _BIAS_FILE).exists():
        ensemble.item_bias = load_file(folder / _BIAS_FILE)["item_bias"]
    return ensemble.eval()


def save_ensemble_bias(folder: Path, ensemble: Ensemble) -> None:
    """Write `ensemble.safetensors` beside the members: the item bias, if there is one."""
    if ensemble.item_bias is not None:
        save_file({"item_bias": ensemble.item_bias.cpu()}, folder / _BIAS_FILE)
