"""Files of a trained network: its learning curve and its summary."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from recsys_core.evaluation.recency_prior import RecencyPrior
from recsys_core.json_file import JsonFile

CurveFigure = Literal["loss", "validation_ndcg_at_10"]
CURVE_FIGURES: tuple[CurveFigure, ...] = ("loss", "validation_ndcg_at_10")


class Epoch(BaseModel):
    """One epoch of a training.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean training loss, in nats.
        validation_ndcg_at_10: None if the epoch was not validated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    loss: float
    validation_ndcg_at_10: float | None


class Curve(JsonFile):
    """A learning curve; the file holds the list of epochs. It is empty without training.

    >>> first = Epoch(epoch=1, loss=7.5, validation_ndcg_at_10=None)
    >>> second = Epoch(epoch=2, loss=6.5, validation_ndcg_at_10=0.25)
    >>> curve = Curve(epochs=[first, second])
    >>> curve.values("validation_ndcg_at_10")
    [(2, 0.25)]
    """

    file_name = "curve.json"

    epochs: list[Epoch]

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, content: Any) -> Any:
        return {"epochs": content} if isinstance(content, list) else content

    @model_serializer
    def _to_list(self) -> list[Epoch]:
        return self.epochs

    def values(self, figure: CurveFigure) -> list[tuple[int, float]]:
        """(epoch, value) of the epochs that have the figure."""
        values = ((epoch.epoch, getattr(epoch, figure)) for epoch in self.epochs)
        return [(epoch, value) for epoch, value in values if value is not None]

    def as_metrics(self, model: str) -> dict[str, list[tuple[int, float]]]:
        """The registry's metrics `curve/<model>/loss` and `curve/<model>/validation_ndcg_at_10`."""
        return {f"curve/{model}/{figure}": self.values(figure) for figure in CURVE_FIGURES}


class NetworkSummary(JsonFile):
    """What a training has reached. The file is written last: with it, the network is complete.

    Attributes:
        parameters: Number of weights.
        epochs: Number of trained epochs; 0 if an earlier network is reused.
        best_epoch: The epoch whose weights are kept.
        validation_ndcg_at_10: NDCG@10 of the saved network on validation events, with its prior.
        recency_prior: What is added to its scores; None: nothing.
    """

    file_name = "summary.json"

    parameters: int
    epochs: int
    best_epoch: int
    validation_ndcg_at_10: float
    recency_prior: RecencyPrior | None


def network_in_words(network: Mapping[str, Any]) -> str:
    """The sizes that tell networks apart.

    >>> network = {"encoder": "gru", "n_layers": 1, "n_repeats": 2, "embedding_dim": 64}
    >>> network_in_words(network | {"ffn_dim": 96})
    'gru, 1 × 2 layers, width 64, 96 channels'
    """
    repeats = f" × {network['n_repeats']}" if network["n_repeats"] > 1 else ""
    return (
        f"{network['encoder']}, {network['n_layers']}{repeats} layers, "
        f"width {network['embedding_dim']}, {network['ffn_dim']} channels"
    )
