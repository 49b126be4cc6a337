"""Gaussian expectations: closed forms, automatic kinks, refused functions, gradients."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from commutant import InputError
from commutant.algebra import (
    Activation,
    find_kinks,
    gaussian_expectation,
    gaussian_pair_expectation,
    hermite_coefficients,
)
from depth import chosen

KERNELS = torch.tensor([1e-8, 1e-3, 0.3, 1.0, 7.0, 100.0], dtype=torch.float64)
EVERY = ["relu", "tanh", "erf", "sin", "gelu", "gelu_tanh", "silu", "mish", "elu", "selu", "softplus", "hardswish"]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(a, b, relative):
    torch.testing.assert_close(a, b, rtol=relative, atol=relative * 1e-3)


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (torch.relu, (0.0,)),
        (torch.tanh, ()),
        (F.gelu, ()),
        (F.selu, (0.0,)),
        (F.elu, (0.0,)),  # its slope is continuous, its curvature is not
        (F.softsign, (0.0,)),
        (F.hardswish, (-3.0, 3.0)),
        (F.hardsigmoid, (-3.0, 3.0)),  # no second derivative in autograd
        (F.relu6, (0.0, 6.0)),
        (F.hardshrink, (-0.5, 0.5)),
        (torch.sign, (0.0,)),
        (F.softplus, (20.0,)),  # where its code turns linear
        (lambda z: (z - 0.7).clamp(min=0) + z.sin(), (0.7,)),
    ],
)
def test_kinks_are_found(function, kinks):
    assert find_kinks(function) == pytest.approx(kinks, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda k: k / 2),
        ("erf", lambda k: 2 / math.pi * torch.arcsin(2 * k / (1 + 2 * k))),
        ("sin", lambda k: -torch.expm1(-2 * k) / 2),
        (
            "gelu",
            lambda k: k / 4 + k / (2 * math.pi) * torch.arcsin(k / (1 + k))
            + k**2 / (math.pi * (1 + k) * (1 + 2 * k).sqrt()),
        ),
    ],
)  # fmt: skip
def test_the_second_moment_is_the_closed_form_by_both_ways(name, formula):
    act = Activation(name)
    close(act.g(KERNELS), formula(KERNELS), 1e-12)
    close(gaussian_expectation(lambda z: act(z) ** 2, KERNELS, kinks=act.kinks), formula(KERNELS), 1e-12)


DUALS = [
    ("relu", (1, 1, 0.5), 0.3044988905, 1 / 3),
    ("erf", (1, 1, 0.5), 0.2163468959, 0.4501581581),
    ("sin", (1, 1, 0.5), 0.1917002498, 0.4148304099),
    ("gelu", (1, 1, 0.5), 0.2272949150, 0.3422672425),
    ("tanh", (1, 1, 0.5), 0.1863244132, 0.3847470284),
    ("gelu", (1, 2, 0.5), 0.2713375463, 0.3161438902),
    ("gelu", (0.3, 4, -1), -0.1065029192, 0.1077368082),
]


@pytest.mark.parametrize(("name", "at", "value", "slope"), DUALS)
def test_reference_values_of_duals(name, at, value, slope):
    act = Activation(name)
    assert float(act.dual(*map(float, at))) == pytest.approx(value, abs=2e-10)
    assert float(act.dual_dot(*map(float, at))) == pytest.approx(slope, abs=2e-10)


@pytest.mark.parametrize("function", ["relu", nn.LeakyReLU(0.3), "abs", "linear", "erf", "sin", "cos", "exp", "gelu"])
def test_closed_forms_are_the_quadrature(function):
    act = Activation(function)
    assert act._formula is not None
    generator = torch.Generator().manual_seed(0)
    u, v = 4 * torch.rand(2, 12, generator=generator, dtype=torch.float64) + 1e-3
    c = (2 * torch.rand(12, generator=generator, dtype=torch.float64) - 1) * (u * v).sqrt()
    kinks = (act.kinks, act.kinks)
    scale = (act.g(u) * act.g(v)).sqrt()
    found = gaussian_pair_expectation(act, act, u, v, c, kinks=kinks)
    assert float(((found - act.dual(u, v, c)) / scale).abs().max()) < 1e-9
    found = gaussian_pair_expectation(act.slope, act.slope, u, v, c, kinks=kinks)
    assert float(((found - act.dual_dot(u, v, c)) / (1 + scale)).abs().max()) < 1e-9


@given(st.sampled_from(EVERY), st.floats(1e-3, 30), st.floats(1e-3, 30), st.floats(-1, 1))
@settings(max_examples=6)
def test_laws_of_duals(name, u, v, rho):
    act = Activation(name)
    c = rho * math.sqrt(u * v)
    value = act.dual(u, v, c)
    close(value, act.dual(v, u, c), 1e-9)
    bound = (act.g(u) * act.g(v)).sqrt()
    assert abs(float(value)) <= float(bound) * (1 + 1e-9)
    close(act.dual(u, u, u), act.g(u), 1e-9)
    if act.odd:
        close(act.dual(u, v, -c), -value, 1e-9)
    if act.homogeneous:
        close(act.dual(4 * u, 9 * v, 6 * c), 6 * value, 1e-12)
    if abs(rho) < 0.99:
        step = 1e-5 * math.sqrt(u * v)
        slope = (act.dual(u, v, c + step) - act.dual(u, v, c - step)) / (2 * step)
        close(slope, act.dual_dot(u, v, c), 1e-5)


@pytest.mark.parametrize("name", ["selu", "relu", "tanh", "gelu"])
def test_a_kernel_matrix_stays_positive_and_is_the_pairs(name):
    act = Activation(name)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 6, generator=generator, dtype=torch.float64)
    x[3] = x[2] * (1 + 1e-9)  # nearly the same input, for which the series alone is not accurate enough
    gram = x @ x.T / 6
    q = gram.diagonal()
    kernel = act.dual(q[:, None], q[None], gram)
    assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-12
    close(kernel.diagonal(), act.g(q), 1e-9)
    rows, columns = torch.tensor([0, 2, 5, 2]), torch.tensor([1, 3, 5, 2])
    few = act.dual(q[rows], q[columns], gram[rows, columns])
    close(kernel[rows, columns], few, 1e-8)


@pytest.mark.parametrize("rho", [0.999999999, 1.0, -1.0, -0.99999])
def test_nearly_parallel_pairs_of_very_different_size(rho):
    u, v = doubles(1e-4, 3e2, 1.0), doubles(2e3, 1e-3, 1.0)
    c = rho * (u * v).sqrt()
    for name in ("relu", "erf"):
        act = Activation(name)
        found = gaussian_pair_expectation(act, act, u, v, c, kinks=(act.kinks, act.kinks))
        scale = (act.g(u) * act.g(v)).sqrt()
        assert float(((found - act.dual(u, v, c)) / scale).abs().max()) < 1e-9


@pytest.mark.parametrize("name", chosen(["relu", "tanh", "selu", "gelu"], ["relu", "tanh"]))
def test_gradients_of_duals(name):
    act = Activation(name)
    points = [t.requires_grad_() for t in (doubles(1.3, 0.5), doubles(0.7, 2.0), doubles(0.4, -0.3))]
    assert torch.autograd.gradcheck(act.dual, points, atol=1e-6)
    assert torch.autograd.gradcheck(act.dual_dot, points, atol=1e-6)
    if act._formula is not None:
        assert torch.autograd.gradgradcheck(lambda *at: sum(act.duals(*at)), points, atol=1e-6)


def test_the_gradient_of_the_arc_cosine_is_finite_at_full_correlation_and_at_zero():
    act = Activation("relu")
    u, c = doubles(1.0, 0.0, 2.0).requires_grad_(), doubles(1.0, 0.0, 2.0).requires_grad_()
    value, slope = act.dual(u, u, c), act.dual_dot(u, u, c)
    assert value.tolist() == [0.5, 0.0, 1.0]
    assert slope.tolist() == pytest.approx([0.5, 0.25, 0.5], abs=1e-15)
    grads = torch.autograd.grad((value + slope).sum(), [u, c])
    assert all(bool(torch.isfinite(g).all()) for g in grads)


@pytest.mark.parametrize("name", EVERY)
def test_susceptibilities_are_derivatives(name):
    act = Activation(name)
    k = doubles(0.2, 1.0, 5.0)
    chi = act.chi(k)
    step = 1e-4 * k
    close(chi.parallel, (act.g(k + step) - act.g(k - step)) / (2 * step), 1e-6)
    close(chi.perpendicular, act.dual_dot(k, k, k), 1e-9)
    higher, lower = act.chi(k + step).perpendicular, act.chi(k - step).perpendicular
    torch.testing.assert_close(chi.curvature, (higher - lower) / (4 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["tanh", "sin", "gelu", "erf", "silu", "relu"])
def test_susceptibilities_at_zero_are_limits(name):
    act = Activation(name)
    at, near = act.chi(0.0), act.chi(1e-7)
    for a, b in ((at.parallel, near.parallel), (at.perpendicular, near.perpendicular), (at.curvature, near.curvature)):
        assert float(a) == pytest.approx(float(b), abs=2e-5)


def test_hermite_coefficients_carry_the_whole_second_moment():
    for name in ("tanh", "gelu", "silu"):
        act = Activation(name)
        q = doubles(0.5, 1.0)
        close(act.hermite(q, 150).square().sum(-1), act.g(q), 1e-9)
    assert hermite_coefficients(lambda z: z, 4.0, 3).tolist() == pytest.approx([0, 2, 0], abs=1e-12)
    assert hermite_coefficients(torch.cos, 0.0, 3).tolist() == pytest.approx([1, 0, 0], abs=1e-12)


def test_gradients_by_variance_need_no_derivative_of_the_function():
    k = doubles(0.5, 2.0).requires_grad_()
    mean = gaussian_expectation(lambda z: (z > 1).double(), k)
    close(mean.detach(), torch.special.erfc(1 / (2 * k.detach()).sqrt()) / 2, 1e-12)
    (slope,) = torch.autograd.grad(mean.sum(), k)
    density = torch.exp(-1 / (2 * k)) / (2 * math.pi * k).sqrt() / (2 * k)
    close(slope, density.detach(), 1e-12)


def test_moments_with_a_mean_and_parameters_with_gradients():
    act = Activation(torch.exp)
    mean, variance = act.moments(doubles(0.3), doubles(0.2))
    assert float(mean) == pytest.approx(math.exp(0.4), rel=1e-12)
    assert float(variance) == pytest.approx(math.expm1(0.2) * math.exp(0.8), rel=1e-11)
    slope = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value = gaussian_expectation(lambda z: torch.where(z > 0, z, slope * z) ** 2, 2.0, kinks=(0.0,))
    (by_slope,) = torch.autograd.grad(value, slope)
    assert float(by_slope) == pytest.approx(0.6, rel=1e-12)


def test_a_constant_input_has_the_gradient_of_the_function_itself():
    mean = doubles(0.3, -0.2).requires_grad_()
    value = gaussian_expectation(torch.tanh, doubles(0.0, 1.0), mean)
    (slope,) = torch.autograd.grad(value.sum(), mean)
    assert float(slope[0]) == pytest.approx(1 - math.tanh(0.3) ** 2, abs=1e-12)
    near = [float(gaussian_expectation(torch.tanh, 1.0, -0.2 + h)) for h in (-1e-5, 1e-5)]
    assert float(slope[1]) == pytest.approx((near[1] - near[0]) / 2e-5, rel=1e-6)


def test_variances_whose_product_leaves_the_range():
    for name in ("relu", "tanh"):
        act = Activation(name)
        tiny = act.dual(1e-170, 1e-170, 0.9e-170)
        assert float(tiny) / 1e-170 == pytest.approx(
            0.9 if name == "tanh" else float(act.dual(1.0, 1.0, 0.9)), rel=1e-9
        )
    assert float(Activation("relu").dual(1e200, 1e200, 1e200)) == pytest.approx(5e199)


@pytest.mark.parametrize("rho", [1 - 1e-4, 0.999, 0.5, -0.9999])
@pytest.mark.parametrize("frequency", [5.0, 10.0, 20.0, 40.0])
def test_waves_that_nodes_cannot_follow_are_right_or_refused(frequency, rho):
    def wave(z):
        return torch.sin(frequency * z)

    def value():
        return float(gaussian_pair_expectation(wave, wave, 1.0, 1.0, rho, kinks=((), ())))

    a = frequency**2
    if frequency < 20:
        assert value() == pytest.approx((math.exp(-a * (1 - rho)) - math.exp(-a * (1 + rho))) / 2, abs=1e-9)
    elif rho != 0.5:
        with pytest.raises(InputError, match="does not converge"):
            value()


def test_a_series_from_nodes_that_miss_the_waves_is_not_believed():
    def wave(z):
        return torch.cos(80 * z)

    with pytest.raises(InputError, match="does not converge"):
        gaussian_pair_expectation(wave, wave, 1.0, 1.0, 0.5, kinks=((), ()))


def test_variances_of_every_size_at_once():
    act, q = Activation("tanh"), torch.logspace(-12, 2, 8, dtype=torch.float64)
    u, v = q[:, None].expand(8, 8), q.expand(8, 8)
    c = 0.6 * (u * v).sqrt()
    one_by_one = [float(act.dual(*map(float, at))) for at in zip(u.flatten(), v.flatten(), c.flatten(), strict=True)]
    close(act.dual(q[:, None], q[None], c).flatten(), torch.tensor(one_by_one, dtype=torch.float64), 1e-11)


def test_identical_inputs_of_a_kinked_activation():
    act, q = Activation("selu"), torch.linspace(1.5, 3.5, 400, dtype=torch.float64)
    for c in (q, q * (1 - 1e-16), q * (1 + 4e-16)):
        close(act.dual(q, q, c), act.g(q), 1e-9)


def test_gelu_of_a_huge_input_is_relu():
    act, relu = Activation("gelu"), Activation("relu")
    close(act.g(doubles(1e20, 1e60)), relu.g(doubles(1e20, 1e60)), 1e-9)
    close(act.dual_dot(1e10, 1e10, 1e10), relu.dual_dot(1e10, 1e10, 1e10), 1e-5)


def test_functions_that_work_in_place():
    act = Activation(nn.ReLU(inplace=True))
    assert act.slopes == (0.0, 1.0)
    assert float(gaussian_expectation(lambda z: z.mul_(2), 1.0, 0.5)) == pytest.approx(1.0)


def test_what_is_refused_in_a_sentence():
    for name in ("relu", "gelu", "erf"):
        with pytest.raises(InputError, match="covariance must not exceed"):
            Activation(name).dual(1.0, 1.0, 5.0)
    with pytest.raises(InputError, match="exceeds the range"):
        Activation("exp").g(1e4)
    with pytest.raises(InputError, match="log gives nan"):
        Activation(torch.log)
    with pytest.raises(InputError, match="unknown activation 'rleu'; known are"):
        Activation("rleu")
    with pytest.raises(InputError, match="must be elementwise"):
        gaussian_expectation(lambda z: z.sum(), 1.0, kinks=())
    with pytest.raises(InputError, match="variance must not be negative, got -1"):
        Activation("tanh").g(-1.0)
    with pytest.raises(InputError, match="variance must be finite"):
        Activation("tanh").g(math.nan)
    with pytest.raises(InputError, match="covariance must not exceed"):
        Activation("tanh").dual(1.0, 1.0, 1.5)
    with pytest.raises(InputError, match="jumps at 0"):
        Activation("sign").dual_dot(1.0, 1.0, 0.5)
    with pytest.raises(InputError, match="not finite everywhere"):
        gaussian_expectation(lambda z: torch.exp(z**2), 10.0, kinks=())
    with pytest.raises(InputError, match="does not converge"):
        gaussian_expectation(lambda z: torch.exp(z**2 / 2), 0.999, kinks=())
    with pytest.raises(InputError, match="does not converge"):
        gaussian_expectation(lambda z: torch.sign(torch.cos(40 * z)), 1.0, kinks=())
    with pytest.raises(InputError, match="more than 64 kinks"):
        find_kinks(lambda z: torch.floor(5 * z))


def test_empty_and_scalar_shapes():
    act = Activation("selu")
    assert act.g(torch.zeros(0, 3)).shape == (0, 3)
    assert act.dual(torch.ones(0, 1), torch.ones(1, 4), torch.ones(0, 4)).shape == (0, 4)
    assert act.g(1.0).dtype == torch.float64
    assert act.g(torch.ones(2, dtype=torch.int64)).shape == (2,)


def test_modules_with_parameters_and_names_that_people_use():
    prelu = Activation(nn.PReLU(init=0.2))
    assert prelu.slopes == pytest.approx((0.2, 1.0))
    assert Activation("swish").g(1.0) == Activation(nn.SiLU()).g(1.0)
    assert Activation(lambda z: z.clamp(min=0)).homogeneous


@pytest.mark.parametrize("name", ["gelu_tanh", "linear", "step", "silu"])
def test_activations_can_be_stored(name):
    act = pickle.loads(pickle.dumps(Activation(name)))
    assert torch.equal(act.g(torch.tensor(0.7)), Activation(name).g(torch.tensor(0.7)))


def test_parameters_of_an_activation_are_taken_as_they_are():
    act = Activation(torch.nn.PReLU(init=0.1))
    assert act(torch.tensor([-1.0])).dtype == torch.float32
    assert float(act.g(2.0)) == pytest.approx(1.01, rel=1e-7)
    assert not act.g(2.0).requires_grad


@pytest.mark.parametrize("spread", [1e-6, 1e-10, 1e-14, 0.0])
def test_variances_do_not_cancel(spread):
    variance = Activation("tanh").moments(1.0, spread)[1]
    slope = 1 - torch.tanh(torch.tensor(1.0, dtype=torch.float64)) ** 2
    assert float(variance) == pytest.approx(float(slope**2) * spread, rel=1e-5, abs=0)


def test_a_step_has_no_slope_where_it_is_flat():
    act = Activation("step")
    assert act.slope(torch.tensor([-1.0, 1.0], dtype=torch.float64)).tolist() == [0.0, 0.0]
