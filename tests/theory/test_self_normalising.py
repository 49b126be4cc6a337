"""Self-normalization: moment map, its theorems on a grid, dropout that keeps moments, deep networks."""

import math

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import Activation
from commutant.theory import (
    SELU,
    SNN,
    AlphaDropout,
    Normalized,
    fixed_point,
    gamma_for_growth,
    is_self_normalizing,
    kernel_flow,
    lecun_normal_,
    moment_map,
    selu_parameters,
)


def grid(*ranges, points=13):
    axes = [torch.linspace(low, high, points, dtype=torch.float64) for low, high in ranges]
    return [axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij")]


def test_zero_and_one_is_the_fixed_point_to_the_last_digit():
    mean, variance = moment_map(0.0, 1.0, activation=SELU())
    assert abs(float(mean)) < 1e-14
    assert abs(float(variance) - 1) < 1e-14
    e = math.e
    alpha = -math.sqrt(2 / math.pi) / (math.erfc(math.sqrt(0.5)) * e**0.5 - 1)
    assert SELU().alpha == pytest.approx(alpha, abs=1e-14)
    assert SELU().alpha * SELU().scale == pytest.approx(1.7580993408473766, abs=1e-15)


def test_the_closed_form_is_the_quadrature():
    m, v = grid((-3, 3), (math.log(1e-3), math.log(20)))
    v = v.exp()
    closed, by_rule = SELU().moments(m, v), Activation("selu").moments(m, v)
    for a, b in zip(closed, by_rule, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_large_means_do_not_overflow_and_constants_have_limits():
    m = torch.tensor([300.0, -300.0, 0.5, -0.5], dtype=torch.float64)
    v = torch.tensor([4.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    mean, variance = SELU().moments(m, v)
    act = SELU()
    want = [300 * act.scale, -act.scale * act.alpha, *act(m[2:]).tolist()]
    assert mean.tolist() == pytest.approx(want, rel=1e-9)
    assert variance.tolist() == pytest.approx([4 * act.scale**2, 0, 0, 0], abs=1e-9)
    m.requires_grad_(), v.requires_grad_()
    grads = torch.autograd.grad(sum(x.sum() for x in SELU().moments(m, v)), (m, v))
    assert all(bool(torch.isfinite(g).all()) for g in grads)


FIXED = [
    (0.0, 1.0, 1.67326324, 1.05070099), (-0.1, 2.0, 1.97690220, 1.07385124), (0.0, 2.0, 1.97125575, 1.06070908),
    (0.0, 0.5, 1.46805987, 1.04095734), (0.1, 1.0, 1.66507743, 1.03820966),
]  # fmt: skip


@pytest.mark.parametrize(("mean", "variance", "alpha", "scale"), FIXED)
def test_parameters_of_other_fixed_points(mean, variance, alpha, scale):
    assert selu_parameters(mean, variance) == pytest.approx((alpha, scale), abs=1e-8)
    act = SELU(mean, variance)
    out = moment_map(mean, variance, 1.0, 1.0, activation=act)
    assert [float(x) for x in out] == pytest.approx([mean, variance], abs=1e-10)
    zero_sum = SELU(mean, variance, omega=0.0)
    out = moment_map(mean, variance, 0.0, 1.0, activation=zero_sum)
    assert [float(x) for x in out] == pytest.approx([mean, variance], abs=1e-10)


def test_the_jacobian_at_the_fixed_point():
    point = fixed_point(activation=SELU())
    want = torch.tensor([[0, 0.08883476], [0, 0.78264788]], dtype=torch.float64)
    torch.testing.assert_close(point.jacobian, want, atol=1e-8, rtol=0)
    assert point.spectral_norm == pytest.approx(0.78767336, abs=1e-8)
    assert point.attracting
    chi = Activation("selu").chi(1.0)
    assert float(chi.parallel) == pytest.approx(point.eigenvalue, abs=1e-8)  # the kernel recursion is the same map
    assert float(chi.perpendicular) == pytest.approx(1.07157499, abs=1e-8)


def test_theorem_one_on_a_grid():
    found = is_self_normalizing(SELU(), points=9)
    assert found.holds
    assert 0.89 < found.contraction < 0.90
    assert found.worst == pytest.approx((-0.1, 0.8, -0.1, 0.95)) or found.worst == pytest.approx((-0.1, 0.8, -0.1, 1.1))
    assert found.image[0] == pytest.approx((-0.031061, 0.067725), abs=1e-6)
    assert found.image[1] == pytest.approx((0.80371, 1.48157), abs=1e-5)
    for omega, tau in ((-0.1, 0.95), (0.1, 1.1), (0.1, 0.95), (-0.1, 1.1)):
        point = fixed_point(omega, tau, activation=SELU())
        assert point.attracting
        assert -0.0210 <= point.mean <= 0.0548
        assert 0.8264 <= point.variance <= 1.4104


@pytest.mark.parametrize(
    ("ranges", "extreme", "above"),
    [
        (((-1, 1), (3, 16), (-0.1, 0.1), (0.8, 1.25)), -0.1197, False),
        (((-0.1, 0.1), (0.02, 0.16), (-0.1, 0.1), (0.8, 1.25)), 1.159, True),
        (((-0.1, 0.1), (0.02, 0.24), (-0.1, 0.1), (0.9, 1.25)), 1.208, True),
    ],
    ids=["theorem 2", "theorem 3", "theorem 3, tau above 0.9"],
)
def test_theorems_two_and_three_on_a_grid(ranges, extreme, above):
    mu, nu, omega, tau = grid(*ranges, points=11)
    _, out = moment_map(mu, nu, omega, tau, activation=SELU())
    if above:
        assert float((out / nu).min()) == pytest.approx(extreme, abs=1e-3)
    else:
        assert float((out - nu).max()) == pytest.approx(extreme, abs=1e-3)


@pytest.mark.parametrize("name", ["relu", "elu", nn.LeakyReLU(0.2), "gelu"])
def test_others_have_no_attracting_point_at_zero_and_one(name):
    assert not is_self_normalizing(name, points=5).holds


def test_any_activation_can_be_normalised_and_is_told_whether_it_attracts():
    for name, attracting in [("tanh", True), ("gelu", False), ("relu", False), ("sigmoid", True), ("softsign", True)]:
        act = Normalized(name)
        out = moment_map(0.0, 1.0, activation=act)
        assert [float(x) for x in out] == pytest.approx([0, 1], abs=1e-12)
        assert act.fixed_point.attracting is attracting, name
    with pytest.raises(InputError, match="is constant"):
        Normalized(lambda z: 0 * z + 3)


@pytest.mark.parametrize("name", ["selu", "tanh", "relu", "gelu", "silu", "sin", "elu", "hardtanh", "abs"])
def test_no_activation_normalises_and_is_critical(name):
    """Check Var s <= E s'^2 (Poincaré), with equality for linear s only: normalizing makes gradients grow."""
    act = Activation(Normalized(name))
    assert float(act.chi(1.0).perpendicular) > 1 + 1e-4


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("point", [(0.0, 1.0), (-0.1, 2.0)])
def test_alpha_dropout_keeps_the_moments_of_any_law(p, point):
    act = SELU(*point)
    drop = AlphaDropout(p, act)
    keep, value, (mean, variance) = 1 - p, -act.scale * act.alpha, point
    first = drop.a * (keep * mean + p * value) + drop.b
    inner = keep * (variance + mean**2) + p * value**2 - (keep * mean + p * value) ** 2
    assert first == pytest.approx(mean, abs=1e-12)
    assert drop.a**2 * inner == pytest.approx(variance, rel=1e-12)
    torch.manual_seed(0)
    x = (torch.rand(200_000, dtype=torch.float64) * 12**0.5 - 3**0.5) * variance**0.5 + mean
    y = drop(x)
    assert float(y.mean()) == pytest.approx(mean, abs=4 * variance**0.5 / 200_000**0.5 * 1.5)
    assert float(y.var()) == pytest.approx(variance, rel=0.03)


def test_reference_values_and_corners_of_alpha_dropout():
    for q, a, b in [(0.95, 0.954844, 0.083936), (0.9, 0.921285, 0.161971), (0.5, 0.886405, 0.779194)]:
        drop = AlphaDropout(1 - q)
        assert (drop.a, drop.b) == pytest.approx((a, b), abs=1e-6)
    x = torch.randn(4, 3, 5)
    assert AlphaDropout(0.0)(x) is x
    assert AlphaDropout(0.5).eval()(x) is x
    assert AlphaDropout(1.0, SELU(-0.1, 2.0))(x).unique().tolist() == pytest.approx([-0.1])
    torch.manual_seed(0)
    dropped = AlphaDropout(0.5, featurewise=True)(x)
    assert all(len(dropped[i, j].unique()) in (1, 5) for i in range(4) for j in range(3))
    with pytest.raises(InputError, match="p must be a probability"):
        AlphaDropout(1.2)


def test_selu_is_torchs_and_precise_in_low_precision():
    x = torch.randn(1000, dtype=torch.float64)
    torch.testing.assert_close(SELU()(x), nn.SELU()(x), rtol=1e-14, atol=1e-15)
    low = SELU()(torch.ones(1, dtype=torch.bfloat16) * 64)
    assert float(low) == float(torch.tensor(64 * 1.0507009873554805).bfloat16())
    y = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    (grad,) = torch.autograd.grad(SELU()(y).sum(), y)
    assert bool(torch.isfinite(grad).all())
    compiled = torch.func.vmap(SELU())(torch.randn(3, 4))
    assert compiled.shape == (3, 4)


def propagate(std, act, depth=32, width=512, seed=0):
    torch.manual_seed(seed)
    x, out = torch.randn(1024, width), []
    for _ in range(depth):
        x = act(x @ (torch.randn(width, width) * std * width**-0.5))
        out.append((float(x.mean()), float(x.var())))
    return out


def test_thirty_two_layers_stay_and_other_initialisations_do_not():
    stays = propagate(1.0, SELU())
    assert max(abs(m) for m, _ in stays) < 0.02
    assert max(abs(v - 1) for _, v in stays) < 0.05
    grows, shrinks = (propagate(std, SELU(), depth=8) for std in (2**0.5, 0.75))
    assert [grows[i][1] for i in (0, 3, 7)] == pytest.approx([1.7, 4.8, 11.7], rel=0.15)
    assert [shrinks[i][1] for i in (0, 3, 7)] == pytest.approx([0.63, 0.26, 0.13], rel=0.1)


def test_gradients_grow_as_the_perpendicular_susceptibility(deep):
    torch.manual_seed(0)
    depth, width = 32 if deep else 16, 256
    net = SNN(width, width, hidden=width, depth=depth, dropout=0.0).double()
    x = torch.randn(64, width, dtype=torch.float64, requires_grad=True)
    out = net(x)
    probe = torch.randn_like(out)
    (grad,) = torch.autograd.grad((out * probe).sum(), x)
    growth = float(grad.square().mean())
    want = float(kernel_flow("selu", depth + 1, weight_variance=1.0).perpendicular.prod())
    assert want == pytest.approx(1.07157499**depth, rel=1e-6)
    assert growth == pytest.approx(want, rel=0.35)


def test_a_skip_tames_two_hundred_layers(deep):
    torch.manual_seed(0)
    depth, width, gamma = 200, 256 if deep else 128, gamma_for_growth(200)
    net = SNN(64, 64, hidden=width, depth=depth, dropout=0.0, gamma=gamma)
    x = torch.randn(256, 64, requires_grad=True)
    (grad,) = torch.autograd.grad((net(x) * torch.randn(256, 64)).sum(), x)
    assert 0.5 < float(grad.square().mean()) < 2 * math.e
    plain = SNN(64, 64, hidden=width, depth=depth, dropout=0.0)
    (wild,) = torch.autograd.grad((plain(x) * torch.randn(256, 64)).sum(), x)
    assert float(wild.square().mean()) > 1e4


def test_shapes_forms_and_refusals_of_the_network(unchecked):
    net = SNN(20, 4, hidden=64, depth=3, form="conic")
    widths = [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert widths == [64, 25, 10, 4]
    assert net(torch.randn(7, 20)).shape == (7, 4)
    assert float(net[0].weight.detach().std()) == pytest.approx(20**-0.5, rel=0.1)
    again = SNN(20, 4, hidden=64, depth=3, generator=torch.Generator().manual_seed(3))
    other = SNN(20, 4, hidden=64, depth=3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again[0].weight, other[0].weight)
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        SNN(0, 4)
    with pytest.raises(InputError, match="rectangular, conic, got 'round'"):
        SNN(3, 4, form="round")
    with pytest.raises(InputError, match="gamma needs hidden layers"):
        SNN(3, 4, form="conic", gamma=0.5)
    with pytest.raises(InputError, match="at least two axes"):
        lecun_normal_(torch.zeros(3))
    with pytest.raises(InputError, match="variance and tau positive, got 0"):
        selu_parameters(0, 0)
    with pytest.raises(InputError, match="variance must not be negative"):
        moment_map(0.0, -1.0)
    with pytest.raises(InputError, match="variance falls to zero"):
        fixed_point(start=(0.0, 0.0))
    with pytest.raises(InputError, match="start must not be negative"):
        fixed_point(start=(0.0, -1.0))
    with pytest.raises(InputError, match="diverge"):
        fixed_point(tau=4.0, activation="relu")
