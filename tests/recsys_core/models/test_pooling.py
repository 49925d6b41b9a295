"""The decaying mean against its definition, with hand-made rates."""

from math import log

import pytest
import torch

from recsys_core.models.pooling import DecayingMean


@pytest.fixture
def mean() -> DecayingMean:
    """Two channels that are averaged with half-lives of 1 and 2 events, as they are."""
    layer = DecayingMean(2, 2, longest=10)
    with torch.no_grad():
        layer.value.weight.copy_(torch.eye(2))
        layer.value.bias.zero_()
        layer.log_rates.copy_((log(2) / torch.tensor([1.0, 2.0])).log())
    return layer.requires_grad_(False)


def test_a_half_life_back_an_event_counts_half(mean: DecayingMean) -> None:
    x = torch.tensor([[[4.0, 1.0], [0.0, 0.0], [0.0, 2.0]]])
    found = mean(x)
    whole = 1 + 0.5 + 0.5**0.5
    expected = torch.tensor(
        [[[4.0, 1.0], [4 / 3, 0.5**0.5 / (1 + 0.5**0.5)], [4 / 7, (0.5 + 2) / whole]]]
    )
    torch.testing.assert_close(found, expected)


def test_the_newest_alone_is_that_of_all(mean: DecayingMean) -> None:
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    newest = torch.tensor([0, 2, 4])
    torch.testing.assert_close(mean.newest(x, newest)[:, 0], mean(x)[torch.arange(3), newest])


def test_long_histories_stay_finite(mean: DecayingMean) -> None:
    x = torch.ones(1, 4096, 2)
    torch.testing.assert_close(mean.newest(x, torch.tensor([4095])), torch.ones(1, 1, 2))


def test_half_lives_are_spread_over_the_longest_history() -> None:
    rates = DecayingMean(8, 2, longest=256).log_rates.exp()
    torch.testing.assert_close(log(2) / rates, torch.tensor([4.0, 64.0]))
