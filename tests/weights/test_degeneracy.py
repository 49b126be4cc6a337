"""Numbers of effective parameters: exact ranks, and the reasons why directions are free."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.weights import behavioral_spectrum, degeneracy_report, effective_parameters


def network(*widths, seed=0, bias=True):
    torch.manual_seed(seed)
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def data(rows=400, width=6, rank=6):
    g = torch.Generator().manual_seed(5)
    return torch.randn(rows, rank, generator=g, dtype=torch.float64) @ torch.randn(
        rank, width, generator=g, dtype=torch.float64
    )


def white(rows):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def equal_gates(seed):
    """Three units that are positive multiples of each other, so that they switch on the same data."""
    model = network(6, 10, 3, seed=seed)
    with torch.no_grad():
        for unit in (1, 2):
            model[0].weight[unit] = (unit + 0.5) * model[0].weight[0]
            model[0].bias[unit] = (unit + 0.5) * model[0].bias[0]
    return model


def linear_units():
    """Two units that are on for all data."""
    model = network(6, 10, 3)
    with torch.no_grad():
        model[0].bias[:2] += 1000
    return model


@pytest.mark.parametrize(
    ("make", "x", "expected"),
    [
        (lambda: network(6, 10, 3), data(), 103 - 10),
        (lambda: network(6, 10, 3, seed=1), data(), 103 - 10),
        (lambda: network(6, 10, 8, 3, seed=1), white(4000), 185 - 18),
        (lambda: network(6, 10, 8, 3, seed=4), white(4000), 166),
        (lambda: network(6, 10, 3), data(rank=4), 103 - 10 - 20),
        (lambda: equal_gates(0), data(), 103 - 7 - 9),
        (lambda: equal_gates(1), data(), 103 - 7 - 9),
        (linear_units, data(), 103 - 8 - 4 - 2),
        (lambda: network(6, 10, 3, bias=False), data(), 90 - 10),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double(), data(), 38),
    ],
)
def test_counts_are_the_exact_ranks(make, x, expected):
    model = make()
    sections = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    assert effective_parameters(model, x.split(500)) == expected
    report = degeneracy_report(model, sections, x.split(500))
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert report.effective == expected


def test_the_report_names_the_reasons():
    report = degeneracy_report(equal_gates(0), ["0", "2"], [data(rank=4)])
    first, last = report.sections
    assert first.activations == (5, 7)
    assert sorted(len(g) for g in first.gates) == [1] * 7 + [3]
    assert last.gates == ()
    lines = str(report).splitlines()
    assert lines[1].split() == ["0", "70", "5", "of", "7", "10", "of", "10", "3", "0", str(first.free)]
    assert lines[-1] == f"{report.effective} of 103 parameters have an effect on the data"
    assert degeneracy_report(linear_units(), ["0", "2"], [data()]).sections[0].linear == (0, 1)


def test_the_spectrum_is_that_of_the_hessian():
    model, x = network(3, 4, 2), data(50, 3, 3)
    names, values = zip(*model.named_parameters(), strict=True)
    shapes = [v.shape for v in values]

    def loss(flat):
        parts = flat.split([s.numel() for s in shapes])
        state = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return (torch.func.functional_call(model, state, x) - model(x).detach()).square().sum() / len(x)

    flat = torch.cat([v.detach().flatten() for v in values])
    wanted = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).flip(0)
    torch.testing.assert_close(behavioral_spectrum(model, x.split(20)), wanted, atol=1e-9, rtol=1e-9)
    spectrum = behavioral_spectrum(model, [x])
    assert effective_parameters(model, [x], float(spectrum[5]) / 2 * 0.999) == 6


@pytest.mark.usefixtures("unchecked")
def test_refused():
    model = network(6, 10, 3)
    with pytest.raises(InputError, match="no batch was given"):
        effective_parameters(model, [])
    with pytest.raises(InputError, match="no batch was given"):
        degeneracy_report(model, ["0", "2"], [])
    with pytest.raises(InputError, match="1 to 5000 parameters"):
        effective_parameters(nn.Linear(100, 100), [torch.randn(2, 100)])
    with pytest.raises(InputError, match="must be linear layers, got ReLU '1'"):
        degeneracy_report(model, ["0", "1"], [data()])
    with pytest.raises(InputError, match="resolution must be"):
        effective_parameters(model, [data()], 0)
