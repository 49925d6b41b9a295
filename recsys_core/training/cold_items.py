# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Cold items: after training, fit the content projections that make the vectors of new items.

While id embeddings and content are trained together, the ids take over, and the vector of an item
without an id may end up far from those of similar items. Dropping ids throughout training helps
(Volkovs et al. 2017, DropoutNet) but costs accuracy on known items. So the rest of the network is
frozen at the end and only the content projections are fitted: first by ridge regression on the
known items' vectors, then by the training loss with some item vectors replaced by their content.
The id embeddings are then set to the difference, so the vectors of known items do not change.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.models.fusion import ContentFusion
from recsys_core.models.recommender import Recommender
from recsys_core.settings import Progress, silent
from recsys_core.training.batching import TrainingSet
from recsys_core.training.gradients import Loss, gradient_step
from recsys_core.training.loop import LoopConfig, TrainingError, schedule
from recsys_core.training.negative_sampling import CandidateSet
from recsys_core.training.parallel import Shard

_CONTENT_ONLY_SHARE = 0.1  # of a batch's items, whose vectors are replaced by their content
_ROWS = 8192  # features per block of the regression's sums


def find_cold_items(training_set: TrainingSet, n_items: int) -> NDArray[np.int32]:
    """item_idx of the items without an event of any kind in a training set."""
    return (np.flatnonzero(training_set.item_counts(n_items)[1:] == 0) + 1).astype(np.int32)


def fit_cold_items(
    model: Recommender,
    cold_items: NDArray[np.int32],
    training_set: TrainingSet,
    config: LoopConfig,
    *,
    candidates: CandidateSet,
    loss: Loss,
    learning_rate: float = 3e-3,
    progress: Progress = silent,
) -> bool:
    """Fit the content projections to the vectors of known items, in place.

    The vectors of known items do not change; those of cold items become their content. The cost is
    one epoch of the loss and of the encoder's forward pass. A model without content does not
    change, nor does one with an `id_bound`, which keeps content accurate during training.

    Args:
        model: A trained model.
        cold_items: item_idx of the items without a training event.
        training_set: The training set of the model.
        config: The settings of its training.
        candidates: The candidates of its training.
        loss: The loss of its training.
        learning_rate: Peak of AdamW. Content features have length 1, so the default suits networks
            of all sizes.
        progress: Called after each step.

    Returns:
        Whether the model was changed.

    Raises:
        TrainingError: The loss or its gradient became NaN or infinite.
    """
    content = model.content
    if content is None or not len(cold_items) or model.config.id_bound is not None:
        return False
    model.eval().requires_grad_(False)
    known = model.item_vectors()
    counts = torch.from_numpy(training_set.item_counts(model.n_items)).to(model.device)
    content.set_projections(ridge_regression(content, known, counts))
    content.requires_grad_(True)
    optimizer = torch.optim.AdamW(content.parameters(), weight_decay=0.0)
    generator = torch.Generator().manual_seed(config.seed)
    shard = Shard.current()
    epoch, n_steps = config.epochs, training_set.steps_per_epoch
    for step, batch in enumerate(training_set.epoch(epoch, config.seed)):
        restricted = candidates.restrict(batch, (config.seed, epoch, step))
        items = None if restricted.items is None else restricted.items.to(model.device)
        rows = known if items is None else known[items]
        content_only = torch.rand(len(rows), 1, generator=generator) < _CONTENT_ONLY_SHARE
        vectors = torch.where(content_only.to(model.device), content(items), rows)
        value = gradient_step(
            model,
            [optimizer],
            vectors,
            restricted,
            loss,
            shard,
            learning_rate=learning_rate * schedule(step, n_steps, config.warmup_share),
            clip_norm=math.inf,
            precision=config.precision,
            read_vectors=rows,
        )
        if not math.isfinite(value):
            msg = f"The loss of fitting cold items or its gradient is not finite at step {step}."
            raise TrainingError(msg)
        if shard.leads:
            progress(1.0, f"fitting {len(cold_items):,} cold items, step {step + 1} of {n_steps}")
    model.requires_grad_(True)
    with torch.no_grad():
        model.id_embedding.copy_(known - content())
    model.zero_id_embeddings(cold_items)
    return True


@torch.no_grad()
def ridge_regression(
    content: ContentFusion,
    vectors: Float[Tensor, "items dim"],
    counts: Int[Tensor, " items"],
    *,
    ridge: float = 5.0,
) -> Float[Tensor, "dim widths"]:
    """The projections whose content is closest to the item vectors, by weighted least squares.

    Args:
        content: The features and gates of the items.
        vectors: The targets.
        counts: Training events of each item: its weight, relative to the mean.
        ridge: Strength of the penalty on the projections, in items of mean weight.
    """
    seen = torch.nonzero(counts).ravel()
    weights = (counts / counts[seen].double().mean())[:, None]
    width = content.gated_features(seen[:1]).shape[1]
    gram = ridge * torch.eye(width, dtype=torch.float64, device=vectors.device)
    moments = gram.new_zeros(width, vectors.shape[1])
    for rows in seen.split(_ROWS):
        features = content.gated_features(rows).double()
        weighted = (features * weights[rows]).T
        gram += weighted @ features
        moments += weighted @ vectors[rows].double()
    return torch.linalg.solve(gram, moments).T.to(vectors.dtype)
