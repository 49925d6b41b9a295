"""A trained recommender on disk: safetensors for the weights, JSON for its shape."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from recsys_core.artifacts import read_json, write_json
from recsys_core.models.recommender import ModelConfig, Recommender

WEIGHTS = "model.safetensors"
SHAPE = "model.json"


def save_model(folder: Path, model: Recommender) -> None:
    """Write `model.safetensors` and `model.json`."""
    save_file(
        {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()},
        folder / WEIGHTS,
    )
    content_dim = 0 if model.content is None else model.content.shape[1]
    shape = {
        "n_items": model.n_items,
        "content_dim": content_dim,
        "config": model.config.model_dump(),
    }
    write_json(folder / SHAPE, shape)


def load_model(folder: Path) -> Recommender:
    """Read a recommender back, in evaluation mode.

    A pruned model comes back with the channels that it kept: `config.ffn_dim` is what it has.

    Raises:
        FileNotFoundError: The folder holds no model.
        RuntimeError: Weights and shape do not belong together.
    """
    shape = read_json(folder / SHAPE)
    n_items, content_dim = shape["n_items"], shape["content_dim"]
    content = torch.zeros(n_items + 1, content_dim) if content_dim else None
    model = Recommender(n_items, ModelConfig(**shape["config"]), content)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval()
