"""Rotary positions know distances, and nothing else."""

import torch

from recsys_core.models.rotary import rotate, rotation_angles


def test_a_score_depends_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8)

    def score(at: int, of: int) -> torch.Tensor:
        turned = rotate(query, rotation_angles(torch.tensor([at]), 8))
        return (turned * rotate(key, rotation_angles(torch.tensor([of]), 8))).sum()

    torch.testing.assert_close(score(5, 2), score(105, 102), rtol=1e-4, atol=1e-5)
    assert (score(5, 2) - score(5, 3)).abs() > 1e-3


def test_turning_keeps_lengths_and_the_origin() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6)
    turned = rotate(x, rotation_angles(torch.arange(4), 6))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])


def test_positions_may_differ_in_a_batch() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, 1, 4)
    together = rotate(x, rotation_angles(torch.tensor([[3], [7]]), 4)[:, None])
    alone = rotate(x[1:], rotation_angles(torch.tensor([7]), 4))
    torch.testing.assert_close(together[1:], alone)
