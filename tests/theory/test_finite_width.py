"""Vertices at finite width: reference table, exact laws, and comparison with random networks."""

import pytest
import torch

from commutant import InputError
from commutant.theory import finite_width

NAMES = ("kernel", "tangent", "four_point", "kernel_shift", "tangent_signal", "tangent_cross", "tangent_mixed",
         "tangent_variance", "tangent_shift")  # fmt: skip
TABLE = {
    ("tanh", 4, 0.1, 1.3, 0.3, 0.7): (
        0.46704047, 1.49927913, 0.139797969, -0.0596927506, -0.195116962, 0.208465546, 1.96613089, 0.357359323,
        -0.0151241423, -0.744720395, -0.30855159,
    ),
    ("gelu", 4, 0.17292239, 1.98305826, 0.5, 1.0): (
        2.15873547, 5.78876193, 66.8990872, 0.236499573, 95.0464174, 38.257679, 58.6700199, 166.445162, -0.300130116,
        2.87225593, 37.306609,
    ),
    ("tanh", 8, 0.0, 1.0, 1.0, 1.0): (
        0.074480204, 4.96649487, 0.0236444098, -0.0961769887, -0.358015984, 0.447584406, 33.2475261, 7.30330688,
        0.358468028, -7.88433758, -5.34715159,
    ),
}  # fmt: skip
LAYER_3 = {
    (0, 0, 1, 1): (0.0349114, -0.0251732, 0.0342312, 0.3070636, 0.0215919),
    (0, 1, 0, 1): (0.2511386, 0.1151632, 0.3886681, 0.7673478, 0.1755406),
    (0, 0, 0, 1): (0.0949803, -0.0349792, 0.1253036, 0.5296636, 0.0389949),
    (0, 1, 1, 1): (0.0950016, -0.0767980, 0.0702185, 0.5022887, 0.0297107),
    (1, 1, 0, 0): (0.0349114, -0.0274835, 0.0342312, 0.3070636, 0.0215919),
}
VERTICES = ("four_point", "tangent_signal", "tangent_cross", "tangent_mixed", "tangent_variance")


def tanh_net(gram, layers, **options):
    rates = {"bias_variance": 0.1, "weight_variance": 1.3, "bias_rate": 0.3, "weight_rate": 0.7, **options}
    return finite_width("tanh", [32] * (layers - 1), torch.as_tensor(gram, dtype=torch.float64), **rates)


@pytest.mark.parametrize(("net", "want"), TABLE.items(), ids=lambda v: str(v[0]))
def test_reference_values_of_one_input(net, want):
    name, layers, b, w, lb, lw = net
    found = finite_width(
        name, [64] * (layers - 1), bias_variance=b, weight_variance=w, bias_rate=lb, weight_rate=lw
    )  # fmt: skip
    last = [float(getattr(found, n)[-1].squeeze()) for n in NAMES] + found.differential[-1].tolist()
    assert last == pytest.approx(want, rel=2e-8)


def test_the_second_layer_is_exact_at_any_width():
    found = tanh_net([[1.0]], 2)
    last = [float(getattr(found, n)[1].squeeze()) for n in VERTICES]
    # Integrated with scipy: C_W^2 (E s^4 - (E s^2)^2) and so on, at K = 1.4 and Theta = 1.
    exact = (0.18596105150796818, -0.09556375911322752, 0.11720353097253444, 0.4965627713592016, 0.060784984986255286)
    assert last == pytest.approx(exact, rel=1e-12)
    assert all(float(getattr(found, n)[0].squeeze()) == 0 for n in VERTICES)


@pytest.mark.parametrize("index", LAYER_3)
def test_reference_values_of_two_inputs(index):
    found = tanh_net([[1.0, 0.4], [0.4, 0.8]], 3)
    last = [float(getattr(found, n)[-1][index]) for n in VERTICES]
    assert last == pytest.approx(LAYER_3[index], abs=6e-8)


def test_symmetries_of_the_vertices():
    found = tanh_net([[1.0, 0.4, 0.1], [0.4, 0.8, -0.2], [0.1, -0.2, 1.1]], 3)
    for name in ("four_point", "tangent_variance"):
        v = getattr(found, name)[-1]
        for order in ((2, 3, 0, 1), (1, 0, 2, 3)):
            torch.testing.assert_close(v, v.permute(order), rtol=1e-9, atol=1e-12)
    b = found.tangent_mixed[-1]
    torch.testing.assert_close(b, b.permute(2, 3, 0, 1), rtol=1e-9, atol=1e-12)


def test_repeated_and_collinear_inputs_need_no_inverse():
    one, two = tanh_net([[0.8]], 3), tanh_net([[0.8, 0.8], [0.8, 0.8]], 3)
    for name in VERTICES:
        close = getattr(two, name)[-1].unique() - getattr(one, name)[-1].squeeze()
        assert float(close.abs().max()) < 1e-9
    pair = finite_width("relu", [8, 8], torch.tensor([[1.0, 2.0], [2.0, 4.0]]), weight_variance=2.0)
    assert float(pair.four_point[-1][1, 1, 1, 1] / pair.four_point[-1][0, 0, 0, 0]) == pytest.approx(16, rel=1e-9)


@pytest.mark.parametrize(("name", "weight", "nu"), [("relu", 2.0, 5.0), ("linear", 1.0, 2.0)])
def test_scale_invariant_activations_have_no_shift_and_grow_linearly(name, weight, nu):
    found = finite_width(name, [50] * 7, 1.7, weight_variance=weight)
    assert found.kernel.squeeze().tolist() == pytest.approx([1.7 * weight] * 8, rel=1e-12)
    square = (1.7 * weight) ** 2
    assert found.four_point.squeeze().tolist() == pytest.approx([nu * i * square for i in range(8)], rel=1e-10)
    assert float(found.kernel_shift.abs().max()) < 1e-9
    assert float(found.tangent_shift.abs().max()) < 1e-8
    wide = finite_width(name, [50, 100], 1.7, weight_variance=weight)
    assert float(wide.four_point[-1]) == pytest.approx(nu * square * 3, rel=1e-10)  # rho = 2


@pytest.mark.deep
def test_the_kernel_of_tanh_has_a_shift_of_a_sixth():
    found = finite_width("tanh", [100] * 300, 1.0, weight_variance=1.0)
    depth = 300
    assert float(found.kernel_shift[-1]) == pytest.approx(-1 / 6, abs=0.01)
    nu = float(found.four_point[-1].squeeze() / found.kernel[-1].squeeze() ** 2) / depth
    assert nu == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.deep
def test_random_networks_of_selu():
    """Compare with 4000 networks of width 64 at layer 3, for an activation without closed forms whose slope jumps."""
    torch.manual_seed(0)
    n, count, c_w = 64, 6000, 0.9
    act = torch.nn.functional.selu
    z = torch.randn(count, n) * c_w**0.5
    tangent = torch.eye(n).expand(count, n, n)
    for _ in range(2):
        weights = torch.randn(count, n, n) * (c_w / n) ** 0.5
        s = act(z)
        slope = torch.where(z > 0, 1.0507009873554805, s + 1.7580993408473766)
        passed = weights * slope[:, None]
        tangent = s.square().mean(-1)[:, None, None] * torch.eye(n) + passed @ tangent @ passed.mT
        z = (weights @ s[..., None])[..., 0]
    found = finite_width("selu", [n, n], 1.0, weight_variance=c_w, bias_rate=0.0, weight_rate=1.0)
    squares, own = z.double().square(), tangent.diagonal(dim1=1, dim2=2).double()

    def covariance(a, b):
        """Return the covariance of different neurons times the width, with its standard error over networks."""
        a, b = a - a.mean(), b - b.mean()
        each = (a.sum(1) * b.sum(1) - (a * b).sum(1)) / (n * (n - 1)) * n
        return float(each.mean()), float(each.std()) / count**0.5

    first = z.double()[:, :, None] * z.double()[:, None] * tangent.double()
    off = (first.sum((1, 2)) - first.diagonal(dim1=1, dim2=2).sum(1)) / (n - 1)
    cross = float(off.mean()), float(off.std()) / count**0.5
    for name, (value, error) in {
        "four_point": covariance(squares, squares),
        "tangent_signal": covariance(squares, own),
        "tangent_variance": covariance(own, own),
        "tangent_cross": cross,
    }.items():
        want = float(getattr(found, name)[-1].squeeze())
        assert abs(value - want) < max(4 * error, 0.15 * abs(want)), (name, value, want, error)


def test_what_is_refused(unchecked):
    with pytest.raises(InputError, match="kinks: at most two"):
        finite_width("relu", [8], torch.eye(3), weight_variance=2.0)
    with pytest.raises(InputError, match="4 independent Gaussian variables, got 5"):
        finite_width("tanh", [8], torch.eye(5), weight_variance=1.0)
    with pytest.raises(InputError, match="widths must be a whole number of at least 1"):
        finite_width("tanh", [8, 0], weight_variance=1.0)
    with pytest.raises(InputError, match="square matrix"):
        finite_width("tanh", [8], torch.ones(2, 3), weight_variance=1.0)
    with pytest.raises(InputError, match="negative eigenvalue"):
        finite_width("tanh", [8], torch.tensor([[1.0, 2.0], [2.0, 1.0]]), weight_variance=1.0)
    with pytest.raises(InputError, match="jumps at 0"):
        finite_width("sign", [8], weight_variance=1.0)
