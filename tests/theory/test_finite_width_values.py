"""Values of critical points, of the flow of kernels and of first-order corrections in 1/width."""

import itertools
import math

import pytest
import torch
from torch import nn

from commutant.algebra import Activation, gaussian_expectation
from commutant.theory import (
    Dense,
    KernelState,
    criticality,
    finite_width,
    four_point_exact,
    layer_shares,
    measure_ensemble,
    nonlinearity,
    optimal_ratio,
    plain_network,
    residual_four_point,
)
from depth import chosen, some


@pytest.mark.parametrize("source", ["linear", "relu", nn.LeakyReLU(0.3)])
def test_scale_invariant_activations_are_critical_at_every_kernel(source):
    found, act = criticality(source), Activation(source)
    k = torch.tensor([1e-6, 0.3, 1.0, 40.0], dtype=torch.float64)
    chi = act.chi(k)
    for part in (chi.parallel, chi.perpendicular):
        torch.testing.assert_close(found.weight_variance * part, torch.ones_like(k), rtol=1e-12, atol=0)
    assert chi.curvature.tolist() == [0.0] * 4
    torch.testing.assert_close(act.g(k), k / found.weight_variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["tanh", "gelu", "silu", "selu"])
def test_the_three_forms_of_the_susceptibilities(name):
    act, k = Activation(name), 1.3
    chi = act.chi(k)

    def mean(f):
        return float(gaussian_expectation(f, k, kinks=act.kinks))

    assert float(chi.parallel) == pytest.approx(mean(lambda z: act(z) ** 2 * (z * z - k)) / (2 * k * k), rel=1e-9)
    assert float(chi.parallel) == pytest.approx(mean(lambda z: z * act(z) * act.slope(z)) / k, rel=1e-9)
    assert float(chi.curvature) == pytest.approx(
        mean(lambda z: act.slope(z) ** 2 * (z * z - k)) / (4 * k * k), rel=1e-9
    )


def test_the_class_of_zero_beyond_odd_activations():
    def f(z):  # s1 = 1, s2 = 0.2, s3 = -1: a1 = -0.97, b1 = -0.96
        return torch.sin(z) + 0.1 * torch.sin(z) ** 2

    found, act, k = criticality(f), Activation(f), 1e-4
    assert found.decay == pytest.approx(0.97, abs=1e-9)
    assert found.exponent == pytest.approx(0.96 / 0.97, abs=1e-9)
    chi = act.chi(k)
    assert (float(act.g(k)) - k) / k**2 == pytest.approx(-0.97, abs=1e-3)
    assert (float(chi.parallel) - 1) / (2 * k) == pytest.approx(-0.97, abs=1e-3)
    assert (float(chi.perpendicular) - 1) / k == pytest.approx(-0.96, abs=1e-3)


@pytest.mark.parametrize(("name", "slope", "want"), some([("sin", 1, 0.9949), ("tanh", 2, 1.0074)]))
def test_kernels_at_layer_four_hundred(name, slope, want):
    act, k = Activation(name), torch.ones((), dtype=torch.float64)
    for _ in range(399):
        k = act.g(k)
    assert slope * 400 * float(k) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize(("name", "bend"), some([("gelu", -1.436e-4), ("silu", 2.85e-6), ("mish", 7.9e-3)]))
def test_the_bend_of_the_kernel_map_at_half_stable_points(name, bend):
    found, act = criticality(name), Activation(name)
    k = torch.tensor([0.999, 1.001], dtype=torch.float64) * found.kernel
    low, high = (found.weight_variance * act.chi(k).parallel).tolist()
    assert (high - low) / float(k[1] - k[0]) / 2 == pytest.approx(bend, rel=2e-3)


def test_gelu_and_silu_have_a_second_fixed_point_and_mish_has_none():
    def roots(name):
        found, act = criticality(name), Activation(name)
        at = torch.linspace(0.5, 1.5, 101, dtype=torch.float64)
        at = at[(at - 1).abs() > 1e-3]  # not the double root
        drift = found.bias_variance + found.weight_variance * act.g(at * found.kernel) - at * found.kernel
        return at[:-1][drift[:-1] * drift[1:] < 0].tolist()

    (gelu,), (silu,) = roots("gelu"), roots("silu")
    assert gelu == pytest.approx(0.855, abs=0.01)  # about 0.86 K*
    assert 1 < silu < 1.03  # just above
    assert roots("mish") == []


@pytest.mark.deep
def test_mish_explodes_above_its_kernel_and_not_below():
    found, act = criticality("mish"), Activation("mish")
    k, layer = torch.tensor([1.3, 0.7], dtype=torch.float64) * found.kernel, 1
    while float(k[0]) < 1e6 and layer < 3000:
        k, layer = found.bias_variance + found.weight_variance * act.g(k), layer + 1
    assert 2000 < layer < 3000
    assert 0.7 * found.kernel < float(k[1]) < found.kernel


@pytest.mark.deep
def test_the_decay_of_elu():
    act, k = Activation("elu"), torch.tensor(1e-6, dtype=torch.float64)
    assert float((k - act.g(k)) / k**1.5) == pytest.approx((2 / math.pi) ** 0.5, rel=2e-3)
    k = torch.ones((), dtype=torch.float64)
    for _ in range(2999):
        k = act.g(k)
    chi = act.chi(k)
    assert float(k) * 3000**2 / (2 * math.pi) == pytest.approx(1.0053, abs=1e-4)
    assert 3000 * (1 - float(chi.parallel)) == pytest.approx(3.004, abs=1e-3)
    assert 3000 * (1 - float(chi.perpendicular)) == pytest.approx(2.003, abs=1e-3)


def test_nearby_inputs_at_the_sheets_tolerance():
    act, c_w, c_b = Activation("gelu"), 1.9, 0.1
    x, step = (torch.tensor(t, dtype=torch.float64) for t in ([1.1, 0.2], [0.006, 0.014]))

    def parts(pp, mm, pm):
        k2 = ((pp + mm) / 2 - pm) / 2
        return (pp + mm) / 2 - k2, (pp - mm) / 2, k2

    grams = [(x + step) @ (x + step), (x - step) @ (x - step), (x + step) @ (x - step)]
    k0, k1, k2 = parts(*grams)
    new = parts(c_b + c_w * act.g(grams[0]), c_b + c_w * act.g(grams[1]), c_b + c_w * act.dual(*grams))
    chi = act.chi(k0)
    want = c_b + c_w * act.g(k0), c_w * chi.parallel * k1, c_w * (chi.perpendicular * k2 + chi.curvature * k1**2)
    assert [float(n) for n in new] == pytest.approx([float(w) for w in want], rel=1e-3)


def test_the_printed_values_of_the_second_layer():
    found = finite_width("tanh", [32], bias_variance=0.1, weight_variance=1.3, bias_rate=0.3, weight_rate=0.7)
    printed = {
        "four_point": 0.185961048,
        "tangent_signal": -0.0955637077,
        "tangent_cross": 0.117203583,
        "tangent_mixed": 0.496562315,
        "tangent_variance": 0.0607845875,
    }
    for name, value in printed.items():
        assert float(getattr(found, name)[1].squeeze()) == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("slope", [0.3, -0.5])
def test_leaky_vertices_grow_as_its_two_slopes_say(slope):
    a2, a4 = (1 + slope**2) / 2, (1 + slope**4) / 2
    nu, act = 3 * a4 / a2**2 - 1, nn.LeakyReLU(slope)
    assert nonlinearity(act) == pytest.approx(nu, rel=1e-12)
    found = finite_width(act, [50] * 5, 1.7, weight_variance=1 / a2)
    k = found.kernel[-1].item()
    assert found.kernel.squeeze().tolist() == pytest.approx([1.7 / a2] * 6, rel=1e-12)
    assert found.four_point.squeeze().tolist() == pytest.approx([nu * i * k**2 for i in range(6)], rel=1e-10)
    assert float(found.kernel_shift.abs().max()) < 1e-9
    assert float(found.tangent_shift.abs().max()) < 1e-8
    assert four_point_exact(act, [50] * 5).tolist() == pytest.approx([(1 + nu / 50) ** i - 1 for i in range(6)])


def test_all_orders_at_width_64():
    at = [1, 3, 7, 15]
    relu, linear = (64 * four_point_exact(name, [64] * 15)[at] for name in ("relu", "linear"))
    assert relu.tolist() == pytest.approx([5.0, 16.2, 44.4, 133.8], abs=0.05)
    assert linear.tolist() == pytest.approx([2.0, 6.2, 15.4, 37.5], abs=0.05)
    product = math.prod(1 + 2 / n for n in (5, 9, 70)) - 1
    assert float(four_point_exact("linear", [5, 9, 70])[-1]) == pytest.approx(product, rel=1e-12)
    found = finite_width("tanh", [64] * 15, weight_variance=1.0)
    kernel = found.kernel.squeeze()
    ratio = found.four_point.squeeze() / kernel**2
    assert ratio[at].tolist() == pytest.approx([0.63, 1.81, 4.26, 9.37], abs=0.006)
    assert kernel[at].tolist() == pytest.approx([0.3943, 0.1667, 0.0745, 0.0347], abs=6e-5)


def test_moments_of_linear_networks_of_any_order():
    torch.manual_seed(0)
    widths, count = (6, 10), 400_000
    ghat = torch.ones(count, dtype=torch.float64)
    for n in widths:  # given the layer below, |z|^2 / n is ghat times chi^2_n / n
        ghat = ghat * torch.distributions.Chi2(torch.tensor(float(n), dtype=torch.float64)).sample((count,)) / n
    for m in (2, 3):
        want = math.prod(1 + 2 * k / n for n in widths for k in range(m))
        error = float((ghat**m).std()) / count**0.5
        assert abs(float((ghat**m).mean()) - want) < 4 * error
    pair = float(four_point_exact("linear", widths)[-1]) + 1
    assert pair == pytest.approx(math.prod(1 + 2 / n for n in widths))


@pytest.mark.parametrize(("name", "nu", "shift"), [("tanh", 0.661, -1 / 6), ("sin", 0.666, -1 / 3)])
@pytest.mark.deep
def test_the_class_of_zero_at_layer_four_hundred(name, nu, shift):
    found = finite_width(name, [64] * 399, weight_variance=1.0)
    ratio = found.four_point[-1].item() / found.kernel[-1].item() ** 2 / 400
    assert ratio == pytest.approx(nu, abs=5e-4)
    assert found.kernel_shift[-1].item() == pytest.approx(shift, abs=0.01)


RESIDUAL = [
    ("relu", [0, 2.25, 5.40, 9.19, 13.42, 17.98], [0, 2.25, 4.5, 6.75, 9.0, 11.25]),
    (nn.LeakyReLU(0.3), [0, 2.02, 4.67, 7.77, 11.17, 14.80], None),
    ("linear", [0, 1.5, 3.0, 4.5, 6.0, 7.5], [0, 1.5, 3.0, 4.5, 6.0, 7.5]),
]


@pytest.mark.parametrize(("act", "corrected", "published"), RESIDUAL)
def test_residual_vertices_of_six_layers(act, corrected, published):
    weight = criticality(act).weight_variance / 2
    K, V, T = residual_four_point(act, 6, gamma=0.5**0.5, weight_variance=weight)
    assert K.tolist() == pytest.approx([1.0] * 6, rel=1e-12)
    assert V.tolist() == pytest.approx(corrected, abs=0.006)
    if act == "relu":
        assert T.tolist() == pytest.approx([0, 0.56, 0.96, 1.25, 1.44, 1.59], abs=0.006)
    if published is not None:
        _, plain, _ = residual_four_point(act, 6, gamma=0.5**0.5, weight_variance=weight, three_point=False)
        assert plain.tolist() == pytest.approx(published, abs=1e-9)


@pytest.mark.parametrize("name", chosen(["linear", "tanh", "sin", "erf"], ["linear", "sin"]))
def test_odd_residual_networks_have_no_three_point_vertex(name):
    args = {"gamma": 0.6, "weight_variance": 0.64 * criticality(name).weight_variance}
    _, V, T = residual_four_point(name, 5, 0.5, **args)
    _, plain, _ = residual_four_point(name, 5, 0.5, **args, three_point=False)
    assert float(T.abs().max()) < 1e-14
    torch.testing.assert_close(V, plain, rtol=1e-12, atol=1e-14)
    _, _, none = residual_four_point("relu", 5, gamma=0.0, weight_variance=2.0)
    assert none.tolist() == [0.0] * 5


@pytest.mark.parametrize("slope", [0.3, -0.5])
def test_the_constant_of_leaky_skips(slope):
    a2, a4, act = (1 + slope**2) / 2, (1 + slope**4) / 2, nn.LeakyReLU(slope)
    for g in (0.0, 0.3, 0.7, 0.95):
        u = g * g
        published = (1 - u) * ((1 - u) * (3 * a4 / a2**2 - 1) + 4 * u)
        assert nonlinearity(act, g, three_point=False) == pytest.approx(published, rel=1e-12)
        skip = 4 / math.pi * ((1 - slope**2) / a2) ** 2 * g * (1 + g) * (1 - u)
        assert nonlinearity(act, g) == pytest.approx(published + skip, rel=1e-12)


@pytest.mark.parametrize("name", ["relu", "linear", "tanh", nn.LeakyReLU(0.3)])
def test_the_published_constant_falls_and_the_exact_one_does_not(name, deep):
    points = 50 if deep else 4
    grid = [i / points for i in range(points + 1)]
    published = [nonlinearity(name, g, three_point=False) for g in grid]
    assert all(a > b for a, b in itertools.pairwise(published))
    assert published[0] == pytest.approx(nonlinearity(name))
    assert published[-1] == 0
    assert optimal_ratio(name, 3, 0.5) * nonlinearity(name, 0.5) * 29 == pytest.approx(4)


def test_values_of_the_constant_of_relu(deep):
    assert nonlinearity("relu", 0.5**0.5) == pytest.approx(5.32, abs=5e-3)
    assert nonlinearity("relu", 0.3) == pytest.approx(6.3, abs=0.05)
    assert max(nonlinearity("relu", i / 100) for i in range(0, 101, 1 if deep else 10)) > 6
    assert nonlinearity("relu", 1.0) == 0


def test_shares_of_fifty_layers():
    weights, biases = (layer_shares("tanh", 50, weight_variance=1.0, of=of) for of in ("weights", "biases"))
    layer = torch.arange(1, 51, dtype=torch.float64)
    uniform, tensorial = weights + biases, weights + biases / layer  # lambda_b = 1 / l, lambda_W = 1 for odd s
    uniform, tensorial = uniform / uniform.sum(), tensorial / tensorial.sum()
    assert uniform[[0, 25, 49]].tolist() == pytest.approx([0.001, 0.020, 0.040], abs=6e-4)
    assert tensorial[[0, 25, 49]].tolist() == pytest.approx([0.0196, 0.0202, 0.0204], abs=6e-5)
    assert float(tensorial.max() / tensorial.min()) < 1.1
    assert float(uniform.max() / uniform.min()) > 10


@pytest.mark.deep
def test_vertices_at_finite_width_approach_theory_from_the_measured_side():
    args = {"bias_variance": 0.1, "weight_variance": 1.3, "bias_rate": 0.3, "weight_rate": 0.7}
    found = measure_ensemble("tanh", [16] * 4, 60_000, **args, tangent=True, generator=torch.Generator().manual_seed(0))
    measured = {
        "four_point": 0.1366,
        "tangent_signal": -0.1884,
        "tangent_cross": 0.2062,
        "tangent_mixed": 2.074,
        "tangent_variance": 0.484,
    }
    for name, value in measured.items():
        estimate = getattr(found, name)
        assert abs(float(estimate.value[-1]) - value) < 4 * float(estimate.error[-1]) + 2e-3 * abs(value), name
    theory = finite_width("tanh", [16] * 3, **args)
    excess = float(found.tangent_variance.value[-1]) - theory.tangent_variance[-1].item()
    assert excess > 0.08  # of 0.357: the next order


@pytest.mark.parametrize("source", ["linear", "relu", nn.LeakyReLU(0.3)])
def test_scale_invariant_networks_are_homogeneous(source):
    act = Activation(source)
    net = plain_network(act, 4, Dense(0.0, 1.3))
    x = torch.randn(4, 3, dtype=torch.float64)
    one, many = net(KernelState.of_inputs(x, x)), net(KernelState.of_inputs(3 * x, 3 * x))
    torch.testing.assert_close(many.kernel, 9 * one.kernel, rtol=1e-12, atol=1e-12)
    weights = [torch.randn(3, 8, dtype=torch.float64), torch.randn(8, 8, dtype=torch.float64)]

    def f(z):
        return act(act(z @ weights[0]) @ weights[1])

    torch.testing.assert_close(f(3 * x), 3 * f(x), rtol=1e-12, atol=1e-12)


def test_hardswish_is_not_swish():
    hard = criticality("hardswish")
    assert hard.kernel == pytest.approx(4.8038559, abs=1e-6)
    assert hard.bias_variance != pytest.approx(criticality("swish").bias_variance, abs=1e-2)


def test_a_zero_input_keeps_a_zero_kernel_and_the_limit_of_chi():
    for name, weight in (("tanh", 1.0), ("gelu", 1.9)):
        found = finite_width(name, [8, 8], 0.0, weight_variance=weight)
        assert float(found.kernel.abs().max()) == 0
        chi = weight * float(Activation(name).chi(0.0).perpendicular)
        assert found.tangent.squeeze().tolist() == pytest.approx([1, 1 + chi, 1 + chi + chi**2])


def test_a_zero_input_is_the_limit_of_small_ones_at_a_kink():
    for name, weight in (("relu", 2.0), ("selu", 1.0)):
        none, little = (finite_width(name, [8, 8], gram, weight_variance=weight) for gram in (0.0, 1e-12))
        torch.testing.assert_close(none.tangent, little.tangent, rtol=1e-5, atol=1e-9)
