"""Sorted networks under distributed data parallelism, in real processes."""

import torch
import torch.nn.functional as F
from sorted_nets import Deep

from commutant.weights import Menu, SortedModule, sorted_loss
from processes import run_in_group

MENU = Menu.product(depth=[1, 2, 4], width=[4, 8, 16])


def _nested():
    torch.manual_seed(0)
    return SortedModule(Deep(), torch.randn(3, 6), {"depth": "blocks.*", "width": "blocks.*.up"}, MENU)


def _loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def _trained(net, nested, x, y):
    """Train for six steps; return the budgets and the weights."""
    optimizer = torch.optim.SGD(nested.parameters(), 0.1)
    drawn = []
    for step in range(6):
        optimizer.zero_grad()
        sorted_loss(net, (x[step], y[step]), lambda n, b: drawn.append(str(nested.current)) or _loss(n, b)).backward()
        optimizer.step()
    return drawn, [p.detach().clone() for p in nested.parameters()]


def _data():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(6, 8, 6, generator=generator), torch.randint(0, 3, (6, 8), generator=generator)


def _rank(rank, size, path):
    nested, (x, y) = _nested(), _data()
    net = torch.nn.parallel.DistributedDataParallel(nested, find_unused_parameters=True)
    torch.manual_seed(rank)  # random numbers of the processes differ, and budgets do not
    torch.save(_trained(net, nested, x[:, rank::size], y[:, rank::size]), f"{path}/{rank}.pt")


def test_processes_draw_the_same_budgets_and_learn_as_one(tmp_path):
    run_in_group(_rank, tmp_path)
    nested = _nested()
    wanted, weights = _trained(nested, nested, *_data())
    assert len(set(wanted)) > 2
    for rank in (0, 1):
        drawn, own = torch.load(tmp_path / f"{rank}.pt")
        assert drawn == wanted
        for a, b in zip(own, weights, strict=True):
            torch.testing.assert_close(a, b)
