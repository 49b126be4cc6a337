"""Laws and values of dual activations and of kernels of wide networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from commutant.algebra import Activation, gaussian_expectation, gaussian_pair_expectation
from commutant.theory import (
    Chain,
    Dense,
    KernelState,
    LayerNormalization,
    Pointwise,
    Residual,
    depth_scale,
    empirical_ntk,
    finite_width,
    infinite_width,
    jacobian_spectrum,
    kernel_flow,
    plain_network,
    spectrum_moments,
    wide_kernel,
)
from depth import chosen

EVERY = ["relu", "tanh", "erf", "sin", "gelu", "gelu_tanh", "silu", "mish", "elu", "selu", "softplus", "hardswish"]


OTHERS = ["linear", "cos", "exp", "atan", "abs"]
ONE_OF_A_KIND = ["relu", "tanh", "erf", "sin", "gelu", "elu", "hardswish", "exp"]


@pytest.mark.parametrize("name", chosen([*EVERY, *OTHERS], ONE_OF_A_KIND))
def test_the_slope_of_a_dual_is_the_dual_of_slopes_to_1e_6(name):
    act, h = Activation(name), 1e-4
    u, v, c = torch.tensor([[1.0, 1.3, 0.4, 2.5], [1.0, 0.6, 2.0, 1.5], [0.5, -0.4, 0.3, 1.2]], dtype=torch.float64)

    def f(s):
        return act.dual(u, v, c + s * h)

    slope = (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * h)
    torch.testing.assert_close(slope, act.dual_dot(u, v, c), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(act.dual(u, v, c), act.dual(v, u, c), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(act.dual(u, u, u), act.g(u), rtol=1e-9, atol=1e-12)
    assert bool((act.dual(u, v, c).abs() <= (act.g(u) * act.g(v)).sqrt() * (1 + 1e-12)).all())


@pytest.mark.parametrize("function", ["relu", "abs", "linear", nn.LeakyReLU(0.3), nn.PReLU(init=-0.4)])
def test_homogeneous_duals_scale(function):
    act = Activation(function)
    assert act.homogeneous
    a, b, (u, v, c) = 2.5, 0.3, (1.3, 0.6, -0.4)
    assert float(act.dual(a * a * u, b * b * v, a * b * c)) == pytest.approx(
        a * b * float(act.dual(u, v, c)), rel=1e-12
    )


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "atan", "linear", "softsign"])
def test_duals_of_odd_activations_are_odd(name):
    act = Activation(name)
    assert act.odd
    assert float(act.dual(1.3, 0.6, -0.4)) == pytest.approx(-float(act.dual(1.3, 0.6, 0.4)), rel=1e-9)


@pytest.mark.parametrize("function", ["relu", nn.LeakyReLU(0.3), "abs", "linear", "erf", "sin", "cos", "exp", "gelu"])
def test_two_hundred_pairs(function, deep):
    act, g, pairs = Activation(function), torch.Generator().manual_seed(0), 200 if deep else 20
    u, v = 4 * torch.rand(2, pairs, generator=g, dtype=torch.float64) + 1e-3
    c = (2 * torch.rand(pairs, generator=g, dtype=torch.float64) - 1) * (u * v).sqrt()
    found, exact = gaussian_pair_expectation(act, act, u, v, c, kinks=(act.kinks, act.kinks)), act.dual(u, v, c)
    assert float(((found - exact) / exact).abs().max()) < 1e-9


def test_the_second_moment_of_gelu_at_its_fixed_point():
    g = Activation("gelu").g(torch.tensor([0.5, 3.5615528128], dtype=torch.float64))
    assert g.tolist() == pytest.approx([0.1895565418, 1.7087901525], abs=1e-10)


def test_leaky_duals_from_those_of_relu():
    up, down, (u, v, c) = 1.0, 0.3, (1.3, 0.7, 0.4)
    relu, leaky = Activation("relu"), Activation(nn.LeakyReLU(0.3))
    value = (up**2 + down**2) * relu.dual(u, v, c) - 2 * up * down * relu.dual(u, v, -c)
    slope = (up**2 + down**2) * relu.dual_dot(u, v, c) + 2 * up * down * relu.dual_dot(u, v, -c)
    assert float(leaky.dual(u, v, c)) == pytest.approx(float(value), rel=1e-12)
    assert float(leaky.dual_dot(u, v, c)) == pytest.approx(float(slope), rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "gelu", "sin", "silu"])
def test_price_for_the_variance(name):
    act = Activation(name)

    def second(z):
        return torch.func.vmap(torch.func.grad(torch.func.grad(act._function)))(z.flatten()).view_as(z)

    u = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(act.dual(u, 0.7, 0.4), u)
    half = gaussian_pair_expectation(second, act, 1.3, 0.7, 0.4, kinks=((), ())) / 2
    assert float(slope) == pytest.approx(float(half), rel=1e-9)
    stein = gaussian_expectation(lambda z: act(z) ** 2 * (z * z - 1.3), 1.3, kinks=()) / (2 * 1.3**2)
    assert float(stein) == pytest.approx(float(act.chi(1.3).parallel), rel=1e-9)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "erf", "selu"])
def test_hermite_series_gives_the_dual(name):
    act = Activation(name)
    powers = torch.arange(200, dtype=torch.float64)
    for u, v, rho in ((1.3, 1.3, 0.5), (1.3, 1.3, -0.7), (1.3, 0.4, 0.6)):
        series = (act.hermite(u, 200) * act.hermite(v, 200) * rho**powers).sum()
        assert float(series) == pytest.approx(float(act.dual(u, v, rho * math.sqrt(u * v))), abs=1e-11)


def test_squares_of_the_coefficients_of_relu_fall_like_k_to_minus_five_halves():
    a = Activation("relu").hermite(1.0, 401).square()
    assert float(a[400] / a[200]) == pytest.approx(2**-2.5, rel=0.01)
    assert 0 < float(0.5 - a.sum()) < 1e-4  # slow: the series alone is no certificate


@pytest.mark.parametrize(
    ("name", "errors"),
    [("tanh", {20: 6e-6, 50: 2e-9}), ("relu", {20: 3.1e-3, 50: 1.1e-3, 100: 5.5e-4, 200: 2.8e-4})],
)
def test_how_tensor_gauss_hermite_converges(name, errors):
    act = Activation(name)
    exact = float(act.dual(1.0, 1.0, 0.5))
    for degree, error in errors.items():
        x, w = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(degree))
        w = w / w.sum()
        found = float((w[:, None] * w * act(x)[:, None] * act(0.5 * x[:, None] + 0.75**0.5 * x)).sum())
        assert abs(found - exact) == pytest.approx(error, rel=0.1)
    panels = gaussian_pair_expectation(act, act, 1.0, 1.0, 0.5, kinks=(act.kinks, act.kinks))
    assert abs(float(panels) - exact) < 1e-12


def test_the_tangent_kernel_of_relu_at_depth_four():
    found = finite_width("relu", [4] * 3, bias_variance=0.3, weight_variance=1.7, bias_rate=0.3, weight_rate=1.0)
    assert float(found.tangent[-1]) == pytest.approx(4.1426125, rel=1e-12)
    assert float(found.tangent_shift.abs().max()) < 1e-12


def test_slopes_of_the_correlation_map():
    act = Activation("selu")
    chi = float(act.chi(1.0).perpendicular)
    assert chi == pytest.approx(1.07157499, abs=1e-8)
    rho = torch.tensor([1 - 1e-7, 1e-6], dtype=torch.float64)
    after = act.dual(1.0, 1.0, rho)
    assert float((1 - after[0]) / 1e-7) == pytest.approx(chi, rel=1e-3)
    assert float(after[1] / 1e-6) == pytest.approx(0.97068, abs=1e-5)
    slope = gaussian_expectation(act.slope, 1.0, kinks=act.kinks)
    assert float(slope) ** 2 == pytest.approx(0.97068035, abs=1e-8)
    assert float(act.dual(1.0, 1.0, 0.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("weight", "ordered"), [(0.7, True), (2.5, False)])
def test_the_depth_scale_is_how_fast_correlations_move(weight, ordered, deep):
    bias = 0.05
    settled = kernel_flow("tanh", 60 if deep else 25, 1.0, bias_variance=bias, weight_variance=weight).kernel[-1]
    chi = weight * float(Activation("tanh").chi(settled).perpendicular)
    assert (chi < 1) is ordered
    rho = kernel_flow("tanh", 4, settled, bias_variance=bias, weight_variance=weight, correlation=1 - 1e-6).correlation
    rate = math.log(float((1 - rho[3]) / (1 - rho[2])))
    assert abs(rate) == pytest.approx(1 / depth_scale(chi), rel=1e-3)
    assert (rate < 0) is ordered


@pytest.mark.deep
def test_spectra_of_linear_networks():
    assert spectrum_moments("linear", 5, weight_variance=1.0) == pytest.approx((1.0, 5.0))
    assert spectrum_moments("linear", 5, weight_variance=1.0, orthogonal=True) == pytest.approx((1.0, 0.0))
    torch.manual_seed(0)
    for orthogonal, want in ((False, 5.1), (True, 0.0)):
        layers = [nn.Linear(300, 300, bias=False) for _ in range(5)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight) if orthogonal else nn.init.normal_(layer.weight, std=300**-0.5)
        squares = jacobian_spectrum(nn.Sequential(*layers), torch.randn(1, 300)).square()
        assert float(squares.var()) == pytest.approx(want, rel=0.15, abs=1e-6)


def test_layer_normalisation_and_residual_are_their_formulas():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = Dense(0.1, 1.4)(KernelState.of_inputs(x, x))
    normal = LayerNormalization(eps=0.0)(state)
    torch.testing.assert_close(normal.kernel, state.kernel / (state.left[:, None] * state.right).sqrt())
    assert normal.left.tolist() == [1.0] * 5
    branch = Chain((Pointwise(Activation("tanh")), Dense(0.1, 0.8)))
    whole, inner = Residual(branch, 0.6)(state), branch(state)
    torch.testing.assert_close(whole.kernel, 0.36 * state.kernel + inner.kernel, rtol=1e-14, atol=0)
    torch.testing.assert_close(whole.tangent, 0.36 * state.tangent + inner.tangent, rtol=1e-14, atol=0)


def test_the_standard_parametrization_multiplies_what_weights_add_by_fan_in():
    net = nn.Sequential(nn.Linear(6, 50, bias=False), nn.ReLU(), nn.Linear(50, 1, bias=False))
    x = torch.randn(4, 6)
    ours, theirs = (
        infinite_width(net, weight_variance=2.0, parametrization=p)(KernelState.of_inputs(x, x)).tangent
        for p in ("standard", "ntk")
    )
    act, gram = Activation("relu"), (x.double() @ x.double().T) / 6
    q = gram.diagonal()
    first = 2 * act.dual_dot(2 * q[:, None], 2 * q, 2 * gram) * gram  # what the first layer adds, per unit of its rate
    last = act.dual(2 * q[:, None], 2 * q, 2 * gram)
    torch.testing.assert_close(theirs, 2 * first + 2 * last, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours, 6 * first + 50 * last, rtol=1e-6, atol=1e-6)


def test_hidden_units_in_another_order_leave_the_empirical_kernel():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 2)).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    before, order = empirical_ntk(net, x), torch.randperm(9)
    with torch.no_grad():
        for parameter, at in ((net[0].weight, 0), (net[0].bias, 0), (net[2].weight, 1)):
            parameter.copy_(parameter.index_select(at, order))
    torch.testing.assert_close(empirical_ntk(net, x), before, rtol=1e-12, atol=1e-12)


def test_tanh_and_sigmoid_have_no_closed_form_and_sigmoid_is_no_erf():
    assert Activation("tanh")._formula is None
    assert Activation("sigmoid")._formula is None
    surrogate = Activation(lambda z: (1 + torch.erf(z * math.pi**0.5 / 4)) / 2)  # the same slope at zero
    assert abs(float(Activation("sigmoid").g(1.0) - surrogate.g(1.0))) > 1e-3
    assert abs(float(Activation("sigmoid").dual(1.0, 1.0, 0.5) - surrogate.dual(1.0, 1.0, 0.5))) > 1e-3


def test_a_bottleneck_has_not_the_kernel_of_the_formula(deep):
    torch.manual_seed(0)
    count, wide, narrow = 2000, 256, 2
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * 2**0.5

    def kernel(n):
        z = x @ torch.randn(count, 2, n) * n**0  # weight variance 2 / fan-in 2
        h = torch.relu(z) @ torch.randn(count, n, wide) * (2 / n) ** 0.5
        return (torch.relu(h) @ torch.relu(h).mT / wide * 2)[:, 0, 1].double()

    formula = float(plain_network("relu", 3, Dense(0.0, 2.0))(KernelState.of_inputs(x, x)).kernel[0, 1])
    found, error = kernel(narrow).mean(), kernel(narrow).std() / count**0.5
    assert abs(float(found) - formula) > 5 * float(error)
    assert float(kernel(256 if deep else 128).mean()) == pytest.approx(formula, rel=0.03)


def test_the_kernel_of_batch_normalisation_depends_on_the_batch():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 50), nn.BatchNorm1d(50), nn.ReLU(), nn.Linear(50, 1)).double()
    x = torch.randn(6, 3, dtype=torch.float64)

    def entry(rows):
        outs = net(rows)[:2, 0]
        grads = [torch.autograd.grad(out, list(net.parameters()), retain_graph=True) for out in outs]
        return float(sum((a * b).sum() for a, b in zip(*grads, strict=True)))

    assert abs(entry(x) - entry(x[:3])) > 0.01 * abs(entry(x))


def test_one_input_and_nothing():
    net = plain_network("relu", 3, Dense(0.0, 2.0))
    assert wide_kernel(net, torch.ones(1, 3)).tolist() == [[6.0]]
    assert wide_kernel(net, torch.ones(0, 3), torch.ones(2, 3)).shape == (0, 2)


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.deep
def test_widths(name):
    torch.manual_seed(0)
    act = torch.relu if name == "relu" else torch.tanh
    x = torch.randn(16, 8)
    weight = 2.0 if name == "relu" else 1.0
    limit = plain_network(name, 3, Dense(0.0, weight))(KernelState.of_inputs(x, x)).kernel.float()
    widths, each = (64, 256, 1024), []
    for n in widths:
        found = []
        for _ in range(32):
            h = x
            for fan_in in (8, n, n):
                h = (act(h) if h is not x else h) @ torch.randn(fan_in, n) * (weight / fan_in) ** 0.5
            found.append(h @ h.T / n)
        each.append(sum(float((k - limit).norm() / limit.norm()) for k in found) / 32)
    slope = np.polyfit(np.log(widths), np.log(each), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)
