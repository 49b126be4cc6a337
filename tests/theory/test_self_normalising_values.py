"""Values of self-normalizing networks, and properties that they do not have."""

import math

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.theory import (
    SELU,
    AlphaDropout,
    fixed_point,
    kernel_flow,
    lecun_normal_,
    moment_map,
)
from depth import some


def test_both_constants_in_closed_form():
    e, erfc = math.e, math.erfc
    one, two = erfc(math.sqrt(0.5)), erfc(math.sqrt(2))
    scale = (1 - one * math.sqrt(e)) * math.sqrt(2 * math.pi)
    scale *= (2 * two * e**2 + math.pi * one**2 * e - 2 * (2 + math.pi) * one * math.sqrt(e) + math.pi + 2) ** -0.5
    assert SELU().scale == pytest.approx(scale, abs=1e-14)
    assert SELU().scale == 1.0507009873554804934193349852946
    assert SELU().alpha == 1.6732632423543772848170429916717


def test_five_digits_of_the_constants_are_not_enough():
    class Rounded:
        def moments(self, mean, variance):
            act = SELU()
            act.alpha, act.scale = 1.67326, 1.0507
            return act.moments(mean, variance)

    mean, variance = (float(x) for x in moment_map(0.0, 1.0, activation=Rounded()))
    assert 1e-10 < max(abs(mean), abs(variance - 1)) < 1e-5


def test_selu_is_continuous_with_its_two_slopes():
    act, x = SELU(), torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64, requires_grad=True)
    y = act(x)
    assert float(y[1].detach()) == 0
    assert float(y.detach().abs().max()) < 2e-9
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert float(slope[0]) == pytest.approx(1.7580993408, abs=1e-8)
    assert float(slope[2]) == pytest.approx(1.0507009874, abs=1e-10)


def test_the_bounds_that_theorem_one_prints():
    axes = [torch.linspace(*r, 13, dtype=torch.float64) for r in ((-0.1, 0.1), (0.8, 1.5), (-0.1, 0.1), (0.95, 1.1))]
    mean, variance = moment_map(*torch.meshgrid(*axes, indexing="ij"), activation=SELU())
    second = variance + mean**2
    assert float(mean.min()) == pytest.approx(-0.03106, abs=5e-6)
    assert float(mean.max()) == pytest.approx(0.06773, abs=5e-6)
    assert float(second.max()) == pytest.approx(1.48617, abs=1e-5)
    assert float(second.min() - mean.abs().max() ** 2) == pytest.approx(0.80009, abs=1e-5)


def test_where_fixed_points_lie_and_that_corners_converge():
    points = [fixed_point(o, t, activation=SELU()) for o in (-0.1, 0.0, 0.1) for t in (0.95, 1.0, 1.1)]
    assert min(p.mean for p in points) == pytest.approx(-0.0209, abs=1e-4)
    assert max(p.mean for p in points) == pytest.approx(0.0547, abs=1e-4)
    assert min(p.variance for p in points) == pytest.approx(0.8265, abs=1e-4)
    assert max(p.variance for p in points) == pytest.approx(1.4103, abs=1e-4)
    for omega, tau in ((-0.1, 0.95), (0.1, 1.1)):
        axes = [torch.tensor(a, dtype=torch.float64) for a in ((-0.1, 0.1), (0.8, 1.5))]
        mean, variance = torch.meshgrid(*axes, indexing="ij")
        for _ in range(200):
            mean, variance = moment_map(mean, variance, omega, tau, activation=SELU())
        point = fixed_point(omega, tau, activation=SELU())
        assert float((mean - point.mean).abs().max()) < 1e-9
        assert float((variance - point.variance).abs().max()) < 1e-9


@pytest.mark.parametrize("omega", some([-0.1, 0.0, 0.1]))
def test_every_fixed_point_lies_between_the_theorems(omega):
    for tau, low in ((0.8, 0.16), (0.9, 0.24), (1.0, 0.24), (1.25, 0.24)):
        for start in ((0.0, 0.05), (0.0, 1.0), (0.0, 10.0)):
            assert low < fixed_point(omega, tau, activation=SELU(), start=start).variance < 3


def test_the_worst_corner_of_theorem_one():
    def norm(tau):
        def step(x):
            return torch.stack(moment_map(x[0], x[1], -0.1, tau, activation=SELU()))

        at = torch.tensor([-0.1, 0.8], dtype=torch.float64)
        return float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(step, at), 2))

    assert norm(1.1) == pytest.approx(0.8976, abs=5e-5)
    assert norm(0.95) < 0.81


def propagate(std, act, depth=32, width=512):
    torch.manual_seed(0)
    x, out = torch.randn(1024, width), []
    for _ in range(depth):
        x = act(x @ (torch.randn(width, width) * std * width**-0.5))
        out.append(float(x.var()))
    return [out[i] for i in (0, 3, 7, 15, 31)]


def test_variances_of_wrong_initialisations_down_to_layer_32():
    # one draw each: the recursion itself gives 34.8 and 192.7 at layers 16 and 32
    assert propagate(2**0.5, SELU()) == pytest.approx([1.7, 4.8, 11.7, 43.7, 183.5], rel=0.35)
    assert propagate(0.75, SELU()) == pytest.approx([0.63, 0.26, 0.13, 0.067, 0.041], rel=0.15)


@pytest.mark.parametrize(
    ("tau", "want"),
    [(2.0, (1.7145, 4.9035, 11.3505, 34.7831, 192.6577)), (0.5625, (0.6347, 0.2551, 0.1303, 0.069, 0.0458))],
)
def test_the_map_itself_explodes_and_collapses(tau, want):
    mean, variance, out = 0.0, 1.0, []
    for _ in range(32):
        mean, variance = (float(v) for v in moment_map(0.0, variance + mean**2, 0.0, tau, activation=SELU()))
        out.append(variance)
    assert [out[i] for i in (0, 3, 7, 15, 31)] == pytest.approx(want, rel=1e-3)


def test_gain_three_quarters_is_torchs():
    assert nn.init.calculate_gain("selu") == 0.75


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_ordinary_dropout_shifts_the_variance(p):
    torch.manual_seed(0)
    x = SELU()(torch.randn(200_000, dtype=torch.float64))
    ordinary, alpha = nn.Dropout(p)(x), AlphaDropout(p)(x)
    assert float(ordinary.var()) == pytest.approx(1 / (1 - p), rel=0.02)
    assert float(alpha.var()) == pytest.approx(1, rel=0.02)
    shifted = nn.Dropout(p)(x + 0.5)  # inverted dropout keeps a mean, and adds its square to the variance
    assert float(shifted.var()) == pytest.approx((1 + 0.25 * p) / (1 - p), rel=0.03)


@pytest.mark.parametrize(
    ("name", "mean", "variance"),
    [("relu", 0.39894228, 0.34084506), ("elu", 0.16052057, 0.61917856), (nn.LeakyReLU(0.2), 0.31915382, 0.41814084)],
)
def test_zero_and_one_is_no_fixed_point_of_others(name, mean, variance):
    assert [float(m) for m in moment_map(0.0, 1.0, activation=name)] == pytest.approx([mean, variance], abs=1e-7)


@pytest.mark.parametrize(("depth", "want"), some([(8, 1.74), (32, 9.1), (64, 83)]))
def test_theory_of_growing_gradients(depth, want):
    growth = float(kernel_flow("selu", depth + 1, weight_variance=1.0).perpendicular.prod())
    assert growth == pytest.approx(1.07157499**depth, rel=1e-6)
    assert growth == pytest.approx(want, rel=0.01)


def test_fan_in_of_a_convolution_counts_its_kernel():
    weight = lecun_normal_(torch.empty(256, 16, 3, 3), generator=torch.Generator().manual_seed(0))
    assert float(weight.var()) == pytest.approx(1 / (16 * 9), rel=0.03)


@pytest.mark.parametrize("at", [(0.0, math.nan), (math.nan, 1.0)])
def test_moments_of_nan_are_refused(at, unchecked):
    with pytest.raises(InputError):
        moment_map(*at)
