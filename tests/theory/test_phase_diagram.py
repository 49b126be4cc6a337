"""Border of order and chaos, and layers in the phase diagram."""

import numpy as np
import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.algebra import Activation
from commutant.theory import critical_, criticality, edge_of_chaos, phase_diagram
from depth import chosen


@pytest.mark.parametrize("name", chosen(["tanh", "erf", "sigmoid", "selu"], ["erf", "sigmoid"]))
def test_on_the_border_alike_inputs_neither_meet_nor_part(name):
    act = Activation(name)
    biases, weights = edge_of_chaos(act, 30)[-8:].T  # well above zero, where kernels settle fast
    k = torch.full_like(biases, 100.0)
    for _ in range(300):
        k = biases + weights * act.g(k)
    assert torch.allclose(k, biases + weights * act.g(k), rtol=1e-9)
    gap = 1e-7  # of the correlation: what is left of it after a layer
    after = (biases + weights * act.dual(k, k, k * (1 - gap))) / k
    assert torch.allclose((1 - after) / gap, torch.ones_like(k), rtol=5e-3)


def test_the_critical_point_lies_on_the_border(deep):
    for name in ("gelu", "tanh", "mish") if deep else ("gelu", "tanh"):
        point, edge = criticality(name), edge_of_chaos(name, 1000)
        place = torch.tensor([point.bias_variance, point.weight_variance], dtype=torch.float64)
        assert float((edge - place).norm(dim=1).min()) < 2e-2
    assert edge_of_chaos("relu")[:, 1].unique().tolist() == [2.0]
    assert float(edge_of_chaos("tanh")[:, 1].min()) > 1 - 1e-4


def _dots(figure):
    offsets = [np.asarray(dots.get_offsets()) for dots in figure.axes[0].collections]
    return torch.from_numpy(np.concatenate(offsets))


def test_layers_are_where_their_variances_are():
    net = nn.Sequential(nn.Linear(50, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 200, bias=False))
    critical_(net)
    with torch.no_grad():
        net[2].weight.mul_(3**0.5)
        net[2].bias.fill_(0.5)
    dots = _dots(phase_diagram(net))
    dots = dots[dots.norm(dim=1) > 0]
    expected = torch.tensor([[1.0, 0.0], [3.0, 0.25], [1.0, 0.0]], dtype=torch.float64)
    assert torch.cdist(expected, dots.double()).min(1).values.max() < 0.1
    assert phase_diagram(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4))).axes


def test_an_activation_without_a_border_is_drawn_too():
    assert edge_of_chaos("softplus").shape == (0, 2)
    net = nn.Sequential(nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 4))
    assert len(_dots(phase_diagram(net))) >= 2


def test_what_has_no_phase_diagram_says_so():
    mixed = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(InputError, match=r"tanh, relu"):
        phase_diagram(mixed)
    with pytest.raises(InputError, match="none"):
        phase_diagram(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(InputError, match="no linear"):
        phase_diagram(nn.Tanh())
