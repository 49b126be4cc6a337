"""Gradients at values that are on a bound by construction, for any behavior of `torch.clamp` at its bounds."""

import pytest
import torch

from commutant.algebra import gaussian_expectation, gaussian_pair_expectation
from commutant.algebra.arithmetic import clip
from commutant.geometry._structured_predictors import _unit
from commutant.sequences import ParaFERNN, ParaGRU, TranslationFlow
from commutant.theory import SELU
from commutant.theory.normalization._moment_map import selu_parts


class _Clamp(torch.autograd.Function):
    """Return a `clamp` with gradient `at_bound` at its bounds."""

    @staticmethod
    def forward(ctx, x, low, high, at_bound):
        out = x.new_tensor(x.detach().numpy().clip(low, high))
        ctx.save_for_backward(x, out)
        ctx.bounds, ctx.at_bound = (low, high), at_bound
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, out = ctx.saved_tensors
        at = sum((x == bound) for bound in ctx.bounds if bound is not None).bool()
        return torch.where(at, ctx.at_bound * gradient, torch.where(x == out, gradient, 0.0)), None, None, None


@pytest.fixture(params=[0.0, 1.0], ids=["new", "old"])
def torch_clamp(request, monkeypatch):
    """Run with both behaviors of torch, whichever version is installed."""
    real = torch.Tensor.clamp

    def clamp(self, min=None, max=None):
        plain = not (self.requires_grad and torch.is_grad_enabled()) or any(
            isinstance(b, torch.Tensor) for b in (min, max)
        )
        return real(self, min, max) if plain else _Clamp.apply(self, min, max, request.param)

    monkeypatch.setattr(torch.Tensor, "clamp", clamp)


def slope(f, *at):
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in at]
    return [float(g) for g in torch.autograd.grad(f(*leaves).sum(), leaves)]


def test_clip():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, torch.nan, torch.inf], requires_grad=True)
    y = clip(x, -1.0, 1.0)
    assert torch.equal(y[:5], torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]))
    assert y[5].isnan()
    assert y[6] == 1
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]))


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_at_their_bound_train_back_inside(sign, torch_clamp):
    for make in (lambda: ParaFERNN(1, 2, TranslationFlow.closed(3, 3), a_max=0.5), lambda: ParaGRU(1, 2, a_max=0.5)):
        net = make()
        weight = net.weight_hh if hasattr(net, "weight_hh") else net.weight_hh_l0
        x = torch.randn(2, 6, 1, 3, 3) if hasattr(net, "weight_hh") else torch.randn(6, 2, 1)
        with torch.no_grad():
            weight.fill_(0.5 * sign)
        (expected,) = torch.autograd.grad(net(x)[0].square().sum(), weight)
        net.a_max = None
        (free,) = torch.autograd.grad(net(x)[0].square().sum(), weight)
        torch.testing.assert_close(expected, free)
        assert free.abs().min() > 0
        net.a_max = 0.5
        with torch.no_grad():
            weight.fill_(2.0 * sign)
        (beyond,) = torch.autograd.grad(net(x)[0].square().sum(), weight)
        assert ((beyond == 0) | (beyond.sign() == sign)).all()  # gradients point back inside only


def test_weights_start_within_their_bound():
    for _ in range(20):
        assert ParaFERNN(1, 8, TranslationFlow.grid(1), a_max=0.2).weight_hh.abs().max() <= 0.2


def test_selu_at_zero(torch_clamp):
    f = SELU()
    (found,) = slope(f, 0.0)
    assert found == pytest.approx(f.scale * f.alpha)


def test_moments_where_the_mean_is_zero(torch_clamp):
    for part in range(4):
        f = lambda m, v, part=part: selu_parts(m, v)[part]  # noqa: E731
        at = torch.tensor([-1e-6, 1e-6], dtype=torch.float64)
        low, high = f(at, torch.tensor(1.0).double())
        assert slope(f, 0.0, 1.0)[0] == pytest.approx(float(high - low) / 2e-6, rel=1e-5)
        # corner of the exponential: the mean is minus the variance
        low, high = f(at - 1, torch.tensor(1.0).double())
        assert slope(f, -1.0, 1.0)[0] == pytest.approx(float(high - low) / 2e-6, rel=1e-5)
    assert slope(lambda m, v: selu_parts(m, v)[0], 0.0, 0.0)[0] == 0.5
    assert slope(lambda m, v: selu_parts(m, v)[1], 0.0, 0.0)[0] == 0.5


def test_quaternions_along_an_axis_have_no_slope_along_themselves(torch_clamp):
    for q in ([0.0, 0.0, 0.0, 1.0], [0.0, -3.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]):
        q = torch.tensor(q, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(_unit, q)
        unit = q / q.norm()
        torch.testing.assert_close(jacobian, (torch.eye(4) - unit[:, None] * unit) / q.norm(), check_dtype=False)
    assert _unit(torch.zeros(4)).tolist() == [0, 0, 0, 0]


def test_the_slope_of_a_smooth_pair_at_full_correlation(torch_clamp):
    """Check that for f = g the derivative with respect to the covariance is the expected squared slope."""
    u = torch.tensor([1.0], dtype=torch.float64)
    c = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    value = gaussian_pair_expectation(torch.sin, torch.sin, u, u, c)
    (found,) = torch.autograd.grad(value.sum(), c)
    expected = (1 + torch.exp(torch.tensor(-2.0, dtype=torch.float64))) / 2
    assert float(found) == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize(
    ("f", "bend", "mean"),
    [
        (lambda x: x.relu().square(), 1.0, 0.0),  # f'' is 0 and 2
        (torch.nn.functional.elu, 0.5, 0.0),  # 1 and 0
        (torch.nn.functional.softsign, 0.0, 0.0),  # 2 and -2
        (lambda x: x * x.abs(), 0.0, 0.0),
        (lambda x: (x - 0.3).relu().square(), 1.0, 0.3),
        (torch.nn.functional.hardswish, 0.0, -3.0),  # f' is 0 and -1/2, so the derivative is infinite
        (lambda x: torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none"), 0.5, 1.0),
        (torch.relu, 0.0, 0.0),  # infinite
        (torch.abs, 0.0, 0.0),
        (torch.sign, 0.0, 0.0),
    ],
)
def test_the_slope_by_a_variance_of_zero_at_a_kink(f, bend, mean):
    (found,) = slope(lambda v: gaussian_expectation(f, v, mean), 0.0)
    assert found == pytest.approx(bend / 2, abs=1e-6)
    if mean == 0:
        of_u, _, _ = slope(lambda u, v, c: gaussian_pair_expectation(f, torch.cos, u, v, c), 0.0, 1.0, 0.0)
        assert of_u == pytest.approx(bend / 2 * 0.6065306597, abs=1e-6)


def test_the_slope_by_a_variance_of_zero_is_that_beside_it():
    for f in (torch.nn.functional.elu, lambda x: x.relu().square()):
        at_zero, beside = (slope(lambda v, f=f: gaussian_expectation(f, v), at)[0] for at in (0.0, 1e-10))
        assert at_zero == pytest.approx(beside, rel=1e-4)


def test_a_constant_beside_a_jump_has_finite_slopes():
    f = lambda x: (x > 0.5).to(x) + x  # noqa: E731
    for variances in ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]):
        slopes = slope(lambda u, v, c: gaussian_pair_expectation(f, f, u, v, c), *variances)
        assert torch.tensor(slopes).isfinite().all()
    # E f'(u) f'(v) for a constant u = 0 and v of variance 1: 1 + the density at the jump
    cross = slope(lambda u, v, c: gaussian_pair_expectation(f, f, u, v, c), 0.0, 1.0, 0.0)[2]
    assert cross == pytest.approx(1 + 0.3520653268)
