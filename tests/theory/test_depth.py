"""Depth and width: kernel flows, exact laws at all orders, skips, and comparison with random networks."""

import math

import pytest
import torch

from commutant import InputError
from commutant.algebra import Activation
from commutant.theory import (
    criticality,
    depth_scale,
    finite_width,
    four_point_exact,
    kernel_flow,
    nonlinearity,
    optimal_ratio,
    residual_four_point,
    skip_for,
)


def test_the_flow_is_the_kernel_recursion_and_susceptibilities_are_its_slopes():
    flow = kernel_flow("tanh", 8, weight_variance=1.0)
    want = finite_width("tanh", [9] * 7, 1.0, weight_variance=1.0).kernel.squeeze()
    torch.testing.assert_close(flow.kernel, want, rtol=1e-10, atol=0)
    assert flow.parallel.shape == flow.perpendicular.shape == (7,)
    k = torch.tensor([1.0, 1.0 + 1e-6], dtype=torch.float64)
    pair = kernel_flow("tanh", 8, k, weight_variance=1.0).kernel
    slope = float((pair[-1, 1] - pair[-1, 0]) / 1e-6)
    assert slope == pytest.approx(float(flow.parallel.prod()), rel=1e-4)


def test_nearby_inputs_part_as_the_three_kernels_say():
    """Check chi_par K1 and chi_perp K2 + h K1^2 with K1 the difference in norm and K2 the squared distance."""
    act, c_w, separation = Activation("gelu"), 1.9, 0.02
    x = torch.tensor([1.1, 0.2], dtype=torch.float64)
    step = separation * torch.tensor([0.3, 0.7], dtype=torch.float64)
    plus, minus = x + step, x - step

    def parts(pp, mm, pm):
        # K++ = K0 + K1 + K2, K-- = K0 - K1 + K2, K+- = K0 - K2
        k1 = (pp - mm) / 2
        k2 = ((pp + mm) / 2 - pm) / 2
        return (pp + mm) / 2 - k2, k1, k2

    k0, k1, k2 = parts(plus @ plus, minus @ minus, plus @ minus)
    pp, mm = c_w * act.g(plus @ plus), c_w * act.g(minus @ minus)
    _, new1, new2 = parts(pp, mm, c_w * act.dual(plus @ plus, minus @ minus, plus @ minus))
    chi = act.chi(k0)
    assert float(new1) == pytest.approx(float(c_w * chi.parallel * k1), rel=1e-3)
    assert float(new2) == pytest.approx(float(c_w * (chi.perpendicular * k2 + chi.curvature * k1**2)), rel=2e-3)


def test_selu_drives_inputs_orthogonal_and_relu_together(deep):
    # Eight random networks of width 1024 gave 0.835, 0.773 and 0.584 at these layers, from 0.895.
    wanted = {10: 0.845, 20: 0.7732, 40: 0.5929} if deep else {10: 0.845}
    flow = kernel_flow("selu", max(wanted) + 1, weight_variance=1.0, correlation=0.9)
    assert [float(flow.correlation[i]) for i in wanted] == pytest.approx(list(wanted.values()), abs=1e-4)
    assert float(flow.perpendicular[0]) == pytest.approx(1.07157, abs=1e-5)
    assert float(kernel_flow("relu", 60, weight_variance=2.0, correlation=0.0).correlation[-1]) > 0.98
    near, depth = (0.999, 30) if deep else (0.9, 15)
    chaotic = kernel_flow("tanh", depth, weight_variance=4.0, correlation=near)
    assert float(chaotic.correlation[-1]) < 0.5


def test_a_thousand_layers_far_off_criticality_are_followed_in_logarithms(deep):
    depth, large = (1000, 16.0) if deep else (120, 2e3)  # either leaves the range of float64
    up, down = (kernel_flow("relu", depth, weight_variance=w, correlation=0.3) for w in (large, 1e-3))
    assert float(up.kernel[-1]) == math.inf
    assert float(up.log_kernel[-1]) == pytest.approx((depth - 1) * math.log(large / 2))
    assert float(down.kernel[-1]) == 0
    assert float(down.log_kernel[-1]) == pytest.approx((depth - 1) * math.log(5e-4))
    torch.testing.assert_close(up.correlation, down.correlation)
    with pytest.raises(InputError, match="at layer"):
        kernel_flow("gelu", 1000, weight_variance=16.0 if deep else 1e4)


def test_the_constants_of_the_book():
    assert nonlinearity("relu") == pytest.approx(5)
    assert nonlinearity("linear") == pytest.approx(2)
    assert nonlinearity("tanh") == pytest.approx(2 / 3)
    nu = {name: nonlinearity(name) for name in ("relu", "linear", "tanh")}
    for name, n_out, want in [("relu", 1, 0.0348), ("linear", 1, 0.0870), ("tanh", 1, 0.2609), ("relu", 10, 0.0160),
                              ("linear", 10, 0.0400), ("tanh", 10, 0.1200)]:  # fmt: skip
        ratio = optimal_ratio(name, n_out)
        assert ratio == pytest.approx(want, abs=5e-5)
        assert ratio * nu[name] * (20 + 3 * n_out) == pytest.approx(4)


def test_the_constant_of_activations_with_two_slopes_at_zero(deep):
    """Check that the constant of SELU is a third of that of the leaky ReLU that it resembles near zero."""
    assert nonlinearity("elu") == pytest.approx(2 / 3)
    depth = 150 if deep else 50
    found = finite_width("selu", [100] * depth, weight_variance=criticality("selu").weight_variance)
    slope = float(found.four_point[-1].squeeze() / found.kernel[-1].squeeze() ** 2) / depth
    assert nonlinearity("selu") == pytest.approx(0.891, abs=1e-3)
    assert slope == pytest.approx(nonlinearity("selu"), rel=0.04)


def test_skips_and_the_term_that_the_published_formula_lacks(deep):
    for g in (0.0, 0.3, 0.7, 1.0) if deep else (0.3,):
        u = g * g
        assert nonlinearity("relu", g, three_point=False) == pytest.approx((1 - u) * (5 - u))
        exact = (1 - u) * (5 - u + 16 / math.pi * g * (1 + g))
        assert nonlinearity("relu", g) == pytest.approx(exact)
        assert nonlinearity("linear", g) == pytest.approx(nonlinearity("linear", g, three_point=False))
        assert nonlinearity("tanh", g) == pytest.approx(2 / 3 * (1 - g**4))
    assert nonlinearity("relu", 0.3) > 6
    assert nonlinearity("relu", 0.73) > 5 > nonlinearity("relu", 0.75)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_the_recursion_reaches_the_slope_of_the_closed_form(name, deep):
    (gamma, depth), found = (0.8, 60) if deep else (0.5, 24), criticality(name)
    kernel = found.kernel
    K, V, _ = residual_four_point(
        name, depth, kernel, gamma=gamma, weight_variance=(1 - gamma**2) * found.weight_variance,
        bias_variance=(1 - gamma**2) * found.bias_variance,
    )  # fmt: skip
    assert K.tolist() == pytest.approx([kernel] * depth, rel=1e-9)
    assert float((V[-1] - V[-2]) / kernel**2) == pytest.approx(nonlinearity(name, gamma), rel=1e-4)


@pytest.mark.deep
def test_residual_relu_against_random_networks():
    """Check the corrected first order, and refute the published one, at width 128 and gamma^2 = 1/2."""
    torch.manual_seed(0)
    n, count, gamma = 128, 4000, 0.5**0.5
    z, sums = torch.randn(count, n), []
    for _ in range(4):
        q, s = z.double().square(), z.double()
        four = ((q - 1).sum(1) ** 2 - ((q - 1) ** 2).sum(1)) / (n - 1)
        three = ((q - 1).sum(1) * s.sum(1) - ((q - 1) * s).sum(1)) / (n - 1)
        sums.append((float(four.mean()), float(four.std()) / count**0.5, float(three.mean())))
        z = (torch.randn(count, n, n) * n**-0.5 @ torch.relu(z)[..., None])[..., 0] + gamma * z
    _, V, T = residual_four_point("relu", 4, gamma=gamma, weight_variance=1.0)
    _, published, _ = residual_four_point("relu", 4, gamma=gamma, weight_variance=1.0, three_point=False)
    assert V.tolist() == pytest.approx([0, 2.25, 5.40, 9.19], abs=0.01)
    assert published.tolist() == pytest.approx([0, 2.25, 4.5, 6.75], abs=1e-9)
    assert T.tolist() == pytest.approx([0, 0.56, 0.96, 1.25], abs=0.01)
    for (four, error, three), v, t in list(zip(sums, V.tolist(), T.tolist(), strict=True))[1:]:
        assert abs(four - v) < 4 * error + 0.1 * v
        assert three == pytest.approx(t, rel=0.2)
    assert sums[3][0] - 4 * sums[3][1] > float(published[3])


@pytest.mark.deep
def test_all_orders_of_relu_against_random_networks():
    """Check all orders at layer 8 and width 16, where the first order is too small."""
    torch.manual_seed(0)
    n, count, depth = 16, 20_000, 8
    z = torch.randn(count, n) * 2**0.5
    for _ in range(depth - 1):
        z = (torch.randn(count, n, n) * (2 / n) ** 0.5 @ torch.relu(z)[..., None])[..., 0]
    q = z.double().square()
    pair = (q.sum(1) ** 2 - (q**2).sum(1)) / (n * (n - 1)) - 4.0
    found, error = float(pair.mean()), float(pair.std()) / count**0.5
    exact = float(four_point_exact("relu", [n] * (depth - 1), 2.0)[-1])
    assert abs(found - exact) < 4 * error
    assert exact > 1.5 * (depth - 1) * 5 * 4 / n


def test_the_skip_for_a_depth():
    gamma = skip_for("relu", 200, 128, 10)
    assert optimal_ratio("relu", 10, gamma) == pytest.approx(200 / 128, rel=1e-6)
    assert 0.9 < gamma < 1
    with pytest.raises(InputError, match="no skip makes 2 layers of 1000 optimal"):
        skip_for("relu", 2, 1000, 10)
    with pytest.raises(InputError, match="no critical point"):
        nonlinearity("sigmoid")
    with pytest.raises(InputError, match="between 0 and 1"):
        nonlinearity("relu", 1.5)
    with pytest.raises(InputError, match="only for scale-invariant activations, got tanh"):
        four_point_exact("tanh", [8])


def test_depth_one_zero_and_scales():
    one = kernel_flow("gelu", 1, torch.tensor([0.5, 2.0]), weight_variance=1.0)
    assert one.kernel.shape == (1, 2)
    assert one.parallel.shape == (0, 2)
    with pytest.raises(InputError, match="at least 1, got 0"):
        kernel_flow("gelu", 0, weight_variance=1.0)
    with pytest.raises(InputError, match="kernel must be finite"):
        kernel_flow("relu", 3, -1.0, weight_variance=1.0)
    with pytest.raises(InputError, match="weight_variance must be finite and not negative, got -2"):
        kernel_flow("relu", 3, weight_variance=-2.0)
    assert depth_scale(1.0) == math.inf
    zero = kernel_flow("tanh", 5, 0.0, weight_variance=1.0)
    assert zero.kernel.tolist() == [0.0] * 5
    assert zero.perpendicular.tolist() == pytest.approx([1.0] * 4)
