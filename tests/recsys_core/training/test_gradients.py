"""The gradient of a batch is the same in parts, and clips the same whether sparse or dense."""

import numpy as np
import pytest
import torch

from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batch import Batch
from recsys_core.training.gradients import backward, clip_gradients
from recsys_core.training.loop import TrainingConfig
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
from recsys_core.training.parallel import Shard

SIZE = ModelConfig(embedding_dim=8, n_layers=1, n_heads=2, ffn_dim=8, max_length=8, dropout=0)
BATCH = Batch(
    torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0], [7, 8, 0]]),
    torch.tensor([[2, 0, 9], [5, 0, 0], [6, 7, 0], [8, 9, 0]]),
    weights=torch.tensor([1.0, 2, 3, 4, 5, 6, 7]),
)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize("cpu_positions", [1, 5])
def test_a_batch_in_parts_is_the_same_batch(loss: str, cpu_positions: int) -> None:
    config = TrainingConfig.model_validate({"loss": loss, "n_negatives": 12})
    candidates = candidate_set_of(np.ones(17, np.int64), config)
    restricted = candidates.restrict(BATCH, (1,))
    torch.manual_seed(0)
    model = Recommender(16, SIZE)

    def gradients(cpu_positions: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        value = backward(
            model,
            model.item_vectors(restricted.items),
            restricted,
            next_item_loss(config, candidates),
            Shard(),
            precision="fp32",
            cpu_positions=cpu_positions,
        )
        return value, [p.grad for p in model.parameters() if p.grad is not None]

    value, whole = gradients(1000)
    value_of_parts, in_parts = gradients(cpu_positions)
    torch.testing.assert_close(value_of_parts, value)
    assert len(in_parts) == len(list(model.parameters()))
    for found, expected in zip(in_parts, whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_sparse_gradients_clip_as_dense_ones_do() -> None:
    norms: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = Recommender(16, SIZE)
        items = torch.tensor([0, 3, 5])
        (model.item_vectors(items, sparse=sparse).square().sum() * 1e3).backward()
        assert model.id_embedding.grad is not None
        assert model.id_embedding.grad.is_sparse is sparse
        norms.append(clip_gradients(model, 1.0))
        gradients.append(model.id_embedding.grad.to_dense())
    torch.testing.assert_close(norms[0], norms[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].norm().item() == pytest.approx(1, abs=1e-4)
    assert norms[0] > 1
