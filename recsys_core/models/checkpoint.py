"""A trained recommender on disk: safetensors for the weights, JSON for its shape."""

from pathlib import Path

from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from recsys_core.artifacts import read_json, write_json
from recsys_core.models.recommender import ModelConfig, Recommender

WEIGHTS = "model.safetensors"
SHAPE = "model.json"
_CONTENT = "content_features."
_BIAS = "item_bias"


def save_model(folder: Path, model: Recommender) -> None:
    """Write `model.safetensors` and `model.json`."""
    tensors = model.state_dict()
    content = {} if model.content is None else model.content.features
    tensors |= {f"{_CONTENT}{name}": rows for name, rows in content.items()}
    tensors |= {} if model.item_bias is None else {_BIAS: model.item_bias}
    save_file(
        {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
        folder / WEIGHTS,
    )
    write_json(folder / SHAPE, {"n_items": model.n_items, "config": model.config.model_dump()})


def load_model(folder: Path) -> Recommender:
    """Read a recommender, in evaluation mode.

    For a pruned model `config.ffn_dim` is the number of channels that it kept.

    Raises:
        FileNotFoundError: The folder holds no model.
        RuntimeError: The weights do not fit the shape.
    """
    shape = read_json(folder / SHAPE)
    tensors = load_file(folder / WEIGHTS)
    names = [name for name in tensors if name.startswith(_CONTENT)]
    # Copies are aligned: the alignment of memory decides the last bit of a product.
    content = {name.removeprefix(_CONTENT): tensors.pop(name).clone() for name in names}
    model = Recommender(shape["n_items"], ModelConfig(**shape["config"]), content or None)
    model.item_bias = tensors.pop(_BIAS, None)
    model.load_state_dict(tensors)
    return model.eval()
