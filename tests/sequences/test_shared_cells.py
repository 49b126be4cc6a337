"""Cells that share one module or one weight between several places."""

import pytest
import torch
from torch import nn

from commutant.sequences import parallel_rnn


class Cell(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.into, self.first = nn.Linear(3, 4), nn.Linear(4, 4)
        self.second = self.first if kind == "module" else nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x, h):
        return torch.tanh(self.into(x) + 0.1 * self.second(torch.tanh(self.first(h))))


@pytest.mark.parametrize("kind", ["module", "weight"])
def test_a_cell_keeps_its_parameters_and_gets_their_gradients(kind):
    torch.manual_seed(0)
    cell, x = Cell(kind).double(), torch.randn(2, 40, 3).double()
    layer, before = parallel_rnn(cell, state_shape=(4,)), dict(cell.named_parameters(remove_duplicate=False))
    h = torch.zeros(2, 4).double()
    for t in range(x.shape[1]):
        h = cell(x[:, t], h)
    wanted = torch.autograd.grad(h.sum(), list(cell.parameters()))
    for _ in range(2):  # a first call that breaks the sharing shows in the second
        cell.zero_grad()
        _, last = layer(x)
        last.sum().backward()
        torch.testing.assert_close(last, h)
        after = dict(cell.named_parameters(remove_duplicate=False))
        assert after.keys() == before.keys()
        assert all(after[name] is p for name, p in before.items())
        for p, grad in zip(cell.parameters(), wanted, strict=True):
            torch.testing.assert_close(p.grad, grad)
