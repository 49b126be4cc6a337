"""Wrapped models under the equivariance checker of e3nn, and failures that it does not see."""

import warnings

import pytest
import torch
from torch import nn

from commutant.geometry import FrameAverage
from commutant.laws import Equivariance, Euclidean, Invariance, Rotation, check

CUBE = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)


class Field(nn.Module):
    """Network from the position and velocity of each point to a vector and a number."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, pos, vel):
        h = self.net(torch.cat([pos, vel], -1))
        return h[..., :3], h[..., 3:]


@pytest.fixture
def e3nn_check():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("e3nn.util.test").assert_equivariant
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # e3nn draws its inputs in the default dtype
    yield lambda f, *inputs, out: found(f, list(inputs), ["cartesian_points", "1o"][: len(inputs)], out)
    torch.set_default_dtype(before)


def wrapped(**options):
    return FrameAverage(Field().double(), inputs={"vel": "vectors"}, outputs={0: "vectors", 1: "scalars"}, **options)


def test_wrapped_models_pass_the_check_of_e3nn(e3nn_check):
    inputs = torch.randn(10, 3), torch.randn(10, 3)
    e3nn_check(wrapped(), *inputs, out=["1o", "0e"])
    with pytest.raises(AssertionError):
        e3nn_check(Field(), *inputs, out=["1o", "0e"])


def test_what_breaks_on_symmetric_clouds_alone_is_found_by_ours(e3nn_check):
    net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    plain = FrameAverage(net, "E(3)", outputs="vectors", on_degenerate="warn")
    e3nn_check(plain, torch.randn(10, 3), out=["1o"])
    law = Equivariance(Euclidean(3), Euclidean(3).on_vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert check(law, plain, torch.randn(10, 3, dtype=torch.float64)).status == "holds"
        draw = lambda g: CUBE * (0.5 + torch.rand((), generator=g, dtype=torch.float64))  # noqa: E731
        assert check(law, plain, draw, explain=False).status == "broken"
    assert check(law, FrameAverage(net, "E(3)", outputs="vectors"), draw).status == "holds"


def test_a_constant_passes_e3nn_and_is_vacuous_here(e3nn_check):
    constant = lambda x: x.new_ones(1, 1) + 0 * x.sum()  # noqa: E731
    e3nn_check(constant, torch.randn(10, 3), out=["0e"])
    assert check(Invariance(Rotation(3)), constant, torch.randn(10, 3)).status == "vacuous"
