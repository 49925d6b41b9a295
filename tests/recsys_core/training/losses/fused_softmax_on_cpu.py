"""The fused loss in Triton's interpreter beside float64: how far it is off, as JSON.

fused_softmax_on_cpu.py OUT
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from recsys_core.training.losses.fused_softmax import fused_cross_entropy


def main() -> None:
    torch.manual_seed(0)
    differences: list[list[float]] = []
    for n_positions, n_items, dim in ((1, 2, 8), (40, 301, 16), (300, 1000, 64)):
        states = torch.randn(n_positions, dim, requires_grad=True)
        item_vectors = torch.randn(n_items + 1, dim, requires_grad=True)
        targets = torch.randint(1, n_items + 1, (n_positions,))
        loss = fused_cross_entropy(states, item_vectors, targets)
        (3 * loss).backward()
        exact = [tensor.detach().double().requires_grad_() for tensor in (states, item_vectors)]
        expected = F.cross_entropy(exact[0] @ exact[1][1:].T, targets - 1)
        (3 * expected).backward()
        pairs = [(loss, expected), (states.grad, exact[0].grad), (item_vectors.grad, exact[1].grad)]
        item_vectors.grad = None
        (3 * fused_cross_entropy(states.detach(), item_vectors, targets)).backward()
        pairs.append((item_vectors.grad, exact[1].grad))
        differences.append([float((one - other).abs().max()) for one, other in pairs])
    Path(sys.argv[1]).write_text(json.dumps(differences))


if __name__ == "__main__":
    main()
