"""Single networks that are trained outside of a night, for the benchmarks of content."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_core.models.recommender import Recommender
from recsys_core.training.cold_items import find_cold_items, fit_cold_items
from recsys_core.training.loop import fit
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
from tasks.training.network import NetworkConfig, build_network, training_set_of
from tasks.training.prepared import Prepared


def varied(network: NetworkConfig, epochs: int, changes: Mapping[str, Any]) -> NetworkConfig:
    """One network of the teacher with other content settings."""
    fields = network.model_dump(include={"model", "training", "content_features"})
    fields["training"] |= {"epochs": epochs, "validate_every": epochs}
    fields["model"] |= {"id_dropout": changes.get("id_dropout", 0.0)}
    fields["content_features"] = changes.get("content_features", fields["content_features"])
    return NetworkConfig.model_validate(fields)


def trained(
    data: Prepared,
    network: NetworkConfig,
    folder: Path,
    *,
    validate_on: Prepared | None = None,
    source: Recommender | None = None,
) -> Recommender:
    """A network trained on the prepared data; its cold items are not fitted yet.

    Args:
        data: Prepared data to train on.
        network: Settings of the network.
        folder: Folder of the checkpoint.
        validate_on: Prepared data whose validation events stop the training; None: `data`.
        source: Model of another catalogue to start from; None: initial weights.
    """
    model = build_network(data, network)
    if source is not None:
        model.initialise_from_other_catalogue(source)
    training_set = training_set_of(data, model.max_length, network.training)
    candidates = candidate_set_of(training_set.item_counts(len(data.items)), network.training)
    fit(
        model,
        training_set,
        network.training,
        candidates=candidates,
        loss=next_item_loss(network.training, candidates),
        validate=(validate_on or data).validator(network.training.validation_cases),
        checkpoint=folder,
        clock=time.monotonic,
    )
    return model


def with_cold_items(model: Recommender, data: Prepared, network: NetworkConfig) -> Recommender:
    """The trained network after the cold items are fitted, as a night does."""
    training_set = training_set_of(data, model.max_length, network.training)
    candidates = candidate_set_of(training_set.item_counts(len(data.items)), network.training)
    fit_cold_items(
        model,
        find_cold_items(training_set, len(data.items)),
        training_set,
        network.training,
        candidates=candidates,
        loss=next_item_loss(network.training, candidates),
    )
    return model
