"""Dropout by bytes does what dropout does."""

import pytest
import torch

from recsys_core.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(100_000,), (333, 301)])
def test_the_share_and_the_mean_are_kept(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(shape))
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert len(dropped.unique()) == 2


def test_each_of_the_eight_bytes_of_a_word_drops_alike() -> None:
    torch.manual_seed(0)
    kept = Dropout(0.5)(torch.ones(400_000)).view(-1, 8) > 0
    torch.testing.assert_close(kept.float().mean(dim=0), torch.full((8,), 0.5), atol=0.01, rtol=0)
    correlations = torch.corrcoef(kept.float().T) - torch.eye(8)
    assert correlations.abs().max() < 0.02


def test_the_gradient_is_dropped_alike() -> None:
    x = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.3)(x)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, dropped.detach())


@pytest.mark.parametrize("p", [0.0, 0.001])
def test_nothing_is_dropped_without_need(p: float) -> None:
    x = torch.ones(10)
    assert Dropout(p)(x) is x
    assert Dropout(0.5).eval()(x) is x


def test_half_precision_stays_half() -> None:
    assert Dropout(0.5)(torch.ones(10, dtype=torch.bfloat16)).dtype == torch.bfloat16
