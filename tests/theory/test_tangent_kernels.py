"""Tangent kernels by definition, by layers and by the forward recursion, at infinite width, and of ensembles."""

import math
import resource

import numpy as np
import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.algebra import Activation
from commutant.theory import (
    Chain,
    Dense,
    KernelState,
    LayerNormalization,
    NTKClassifier,
    NTKRegressor,
    Pointwise,
    Residual,
    empirical_ntk,
    gp_predict,
    infinite_width,
    ntk_predict,
    ntk_vector_product,
    plain_network,
    wide_kernel,
)
from commutant.theory.kernels import _empirical as empirical
from depth import some


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def points(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def by_recursion(net, x):
    """Return the kernel by H' = W D H D W^T + 1 (h.h' + 1), layer by layer and pair by pair."""
    layers = [m for m in net if isinstance(m, nn.Linear)]
    acts = [m for m in net if not isinstance(m, nn.Linear)]
    out = torch.zeros(len(x), len(x), layers[-1].out_features, layers[-1].out_features, dtype=x.dtype)
    for a in range(len(x)):
        for b in range(len(x)):
            h, g = x[a], x[b]
            tangent = torch.zeros(len(h), len(h), dtype=x.dtype)
            passed = [torch.eye(len(h), dtype=x.dtype)] * 2
            for i, layer in enumerate(layers):
                left, right = layer.weight @ passed[0], layer.weight @ passed[1]
                tangent = left @ tangent @ right.T + torch.eye(len(left), dtype=x.dtype) * (h @ g + 1)
                h, g = layer(h), layer(g)
                if i < len(acts):
                    passed = [torch.diag(torch.func.vmap(torch.func.grad(acts[i]))(z)) for z in (h, g)]
                    h, g = acts[i](h), acts[i](g)
            out[a, b] = tangent
    return out.detach()


def test_jacobian_contraction_is_the_forward_recursion(net):
    x = points(4, 5)
    assert torch.allclose(empirical_ntk(net, x, every_output=True), by_recursion(net, x), rtol=1e-12, atol=1e-12)


def test_layers_and_jacobians_agree(net, monkeypatch):
    x, y = points(9, 5), points(4, 5)
    fast = empirical_ntk(net, x, y), empirical_ntk(net, x)
    monkeypatch.setattr(empirical, "_by_layers", lambda *_: None)
    slow = empirical_ntk(net, x, y), empirical_ntk(net, x, bytes_at_once=1)
    for one, two in zip(fast, slow, strict=True):
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)


def test_the_kernel_is_symmetric_and_positive(net):
    k = empirical_ntk(net, points(12, 5))
    assert torch.equal(k, k.T) or torch.allclose(k, k.T, rtol=1e-14)
    assert float(torch.linalg.eigvalsh(k).min()) > -1e-10


def test_a_weight_that_is_used_beside_its_layer_is_noticed():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) @ self.layer.weight

    model, x = Twice().double(), points(3, 4)
    full = empirical_ntk(model, x, every_output=True).diagonal(dim1=2, dim2=3).mean(-1)
    assert torch.allclose(empirical_ntk(model, x), full, rtol=1e-12)


def test_a_path_that_the_first_input_hides_is_noticed():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(x) + x @ self.layer.weight

    model, x = Hidden().double(), points(5, 6)
    x[0] = 0
    full = empirical_ntk(model, x, every_output=True).diagonal(dim1=2, dim2=3).mean(-1)
    assert torch.allclose(empirical_ntk(model, x), full, rtol=1e-12)


def test_outputs_without_an_axis_and_inputs_that_are_worked_on():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 1)

        def forward(self, x):
            x -= 1
            return self.layer(x).squeeze(-1)

    model, x = InPlace().double(), points(5, 6)
    before = x.clone()
    with torch.no_grad():
        found = empirical_ntk(model, x)
    assert torch.equal(x, before)
    assert torch.allclose(found, (x - 1) @ (x - 1).T + 1, rtol=1e-12)
    with pytest.raises(InputError, match="one tensor"):
        empirical_ntk(nn.GRU(6, 3, batch_first=True), torch.randn(2, 4, 6))


def test_any_module(net):
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    x = points(5, 2, 8)
    model(x)
    k = empirical_ntk(model, x, every_output=True)
    v = points(5, 2)
    assert torch.allclose(torch.einsum("abop,bp->ao", k, v), ntk_vector_product(model, x, v), rtol=1e-10)


def test_frozen_parameters_do_not_count(net):
    x = points(3, 5)
    whole = empirical_ntk(net, x)
    for p in net[0].parameters():
        p.requires_grad_(False)
    part = empirical_ntk(net, x)
    assert float(torch.linalg.eigvalsh(whole - part).min()) > -1e-10
    assert not torch.allclose(whole, part)


def test_a_wide_network_has_the_kernel_of_its_limit(deep):
    x, errors = torch.randn(8, 6), []
    for width in (64, 4096 if deep else 2560):
        found = []
        for _ in range(3 if deep or width == 64 else 1):
            net = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))
            limit = infinite_width(net)(KernelState.of_inputs(x, x)).tangent
            found.append(float((empirical_ntk(net, x) - limit).norm() / limit.norm()))
        errors.append(sum(found) / 3)
    assert errors[1] < 0.05
    assert errors[0] / errors[1] > 3  # like width to the power -1/2: eight


def test_residual_normalised_and_scaled_networks_at_infinite_width():
    class Net(nn.Module):
        def __init__(self, n=1024):
            super().__init__()
            self.first, self.inside, self.last = nn.Linear(6, n), nn.Linear(n, n), nn.Linear(n, 1)
            self.norm = nn.LayerNorm(n)

        def forward(self, x):
            h = self.first(x)
            h = h * 0.5 + self.inside(torch.relu(self.norm(h)))
            return self.last(torch.tanh(h))

    net, x = Net(), torch.randn(6, 6)
    state = infinite_width(net)(KernelState.of_inputs(x, x))
    measured = empirical_ntk(net, x)
    assert float((measured - state.tangent).norm() / state.tangent.norm()) < 0.08
    net.norm.requires_grad_(False)  # the tangent kernel of a gain that trains in NTK parametrization is not known
    spec = infinite_width(net, bias_variance=0.1, weight_variance=1.5, parametrization="ntk")
    same = Chain((
        Dense(0.1, 1.5), Residual(Chain((LayerNormalization(), Pointwise(Activation("relu")), Dense(0.1, 1.5))), 0.5),
        Pointwise(Activation("tanh")), Dense(0.1, 1.5),
    ))  # fmt: skip
    one, two = (m(KernelState.of_inputs(x, x)).tangent for m in (spec, same))
    assert torch.allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "1 \\(BatchNorm1d\\).*rest of the batch"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), "Conv2d.*positions"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(-1)), "Softmax"),
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), "eval"),
    ],
)
def test_what_has_no_kernel_map_is_refused_by_name(module, says):
    with pytest.raises(InputError, match=says):
        infinite_width(module)


def test_dependent_sums_are_refused():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            h = self.layer(x)
            return torch.relu(h) + torch.tanh(h)

    with pytest.raises(InputError, match="not independent"):
        infinite_width(Doubled())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)) + torch.relu(self.second(x)))


class Again(Twice):
    def forward(self, x):
        return self.last(self.first(x) + self.first(x * 2))


class Doubled(Twice):
    def forward(self, x):
        z = torch.tanh(self.first(x))
        return self.last(z + z * 2)


class Several(Twice):
    def forward(self, x):
        return self.first(x), self.second(x)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Twice, "neither of which is a sum of outputs"),
        (Again, "called twice"),
        (Doubled, "not independent"),
        (Several, "several values"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(kind, says):
    with pytest.raises(InputError, match=says):
        infinite_width(kind())


@pytest.mark.parametrize("kind", ["batch normalization", "dropout"])
def test_a_kernel_of_the_batch_or_of_chance_is_refused(kind):
    layer = nn.BatchNorm1d(3) if kind == "batch normalization" else nn.Dropout(0.1)
    net = nn.Sequential(nn.Linear(3, 3), layer)
    with pytest.raises(InputError, match="eval"):
        empirical_ntk(net, torch.randn(2, 3))
    assert empirical_ntk(net.eval(), torch.randn(2, 3)).shape == (2, 2)


def test_empty_and_broken_inputs(net, unchecked):
    assert empirical_ntk(net, points(0, 5)).shape == (0, 0)
    assert empirical_ntk(net, points(2, 5), points(0, 5)).shape == (2, 0)
    assert wide_kernel(plain_network(Activation("relu"), 2, Dense(0.0, 2.0)), points(0, 5)).shape == (0, 0)
    with pytest.raises(InputError, match="finite"):
        empirical_ntk(net, torch.full((2, 5), math.nan, dtype=torch.float64))
    with pytest.raises(InputError, match="finite"):
        wide_kernel(plain_network(Activation("relu"), 2, Dense(0.0, 2.0)), torch.full((2, 5), math.inf))
    with pytest.raises(InputError, match="one width"):
        wide_kernel(plain_network(Activation("relu"), 2, Dense(0.0, 2.0)), points(2, 5), points(2, 4))
    with pytest.raises(InputError, match="shape"):
        ntk_vector_product(net, points(2, 5), points(2, 4))
    with pytest.raises(InputError, match="no parameter"):
        empirical_ntk(nn.ReLU(), points(2, 5))


CASES = {
    "relu, any norms": ("relu", Dense(0.0, 2.0), False),
    "relu with biases, one norm": ("relu", Dense(0.1, 2.0, 1.0, 1.0), True),
    "relu with biases, any norms": ("relu", Dense(0.1, 2.0), False),
    "gelu, any norms": ("gelu", Dense(0.17, 1.98), False),
    "tanh, one norm": ("tanh", Dense(0.1, 1.3), True),
}


TABLES = [(case, get) for get in ("kernel", "tangent") for case in CASES]


@pytest.mark.parametrize(("case", "get"), some(TABLES, keep=8))
def test_blocks_and_tables_give_the_kernel_of_the_layers(case, get, monkeypatch):
    name, dense, sphere = CASES[case]
    monkeypatch.setattr("commutant.theory.kernels._wide_kernel._BLOCK", 37)
    n = 70 if name in ("relu", "gelu") else 48  # pairs without a closed form take their time
    x = points(n, 9)
    x[11] = x[5]
    x[12] = -x[6]
    if sphere:
        x = x / x.square().mean(1, keepdim=True).sqrt()
    net = plain_network(Activation(name), 4, dense)
    state = net(KernelState.of_inputs(x, x))
    exact = state.tangent if get == "tangent" else state.kernel
    found = wide_kernel(net, x, get=get)
    assert torch.equal(found, found.T)
    # Repeated inputs lie where arccos is steep: the layers themselves are right to 1e-8 there.
    off = torch.ones(n, n, dtype=torch.bool)
    off[11, 5] = off[5, 11] = off[12, 6] = off[6, 12] = False
    scale = float(exact.abs().max())
    assert float((found - exact)[off].abs().max()) < 3e-10 * scale
    assert float((found - exact).abs().max()) < 1e-6 * scale
    assert torch.allclose(found[11, 5], found[5, 5], rtol=1e-9)
    assert torch.allclose(wide_kernel(net, x[:45], x, get=get), found[:45], rtol=1e-9, atol=1e-9 * scale)


def test_the_reference_value_of_three_he_layers():
    x = torch.tensor([[math.sqrt(2), 0.0], [math.sqrt(0.5), math.sqrt(1.5)]], dtype=torch.float64)
    net = plain_network(Activation("relu"), 3, Dense(0.0, 2.0, bias_rate=1.0, weight_rate=1.0))
    k = wide_kernel(net, x)
    assert float(k[0, 0]) == 6.0
    assert float(k[0, 1]) == pytest.approx(3.5321932, abs=1e-7)


def test_a_zero_input_is_no_trouble():
    x = points(60, 4)
    x[3] = 0
    k = wide_kernel(plain_network(Activation("relu"), 3, Dense(0.0, 2.0)), x)
    assert bool(torch.isfinite(k).all())
    assert bool((k[3] == 0).all())


@pytest.mark.deep
def test_memory_is_hardly_more_than_the_kernel():
    x = points(4000, 16)
    net = plain_network(Activation("relu"), 4, Dense(0.0, 2.0))
    wide_kernel(net, x[:2000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    k = wide_kernel(net, x)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 1.5 * k.nbytes


def test_gaussian_process_and_descent_to_the_end_interpolate():
    x, y = points(20, 4), points(20, 2)
    k = wide_kernel(plain_network(Activation("relu"), 3, Dense(0.1, 2.0)), x)
    for found in (gp_predict(k, y, k), ntk_predict(k, y, k), ntk_predict(k, y, k, time=1e9)):
        assert torch.allclose(found.mean, y, atol=1e-5)
    assert gp_predict(k, y, k, k).covariance.abs().max() < 1e-9
    noisy = gp_predict(k, y, k, k, noise=0.5).covariance
    assert torch.allclose(noisy, k - k @ torch.linalg.inv(k + 0.5 * torch.eye(20)) @ k, atol=1e-9)


def test_steps_of_descent_are_those_of_the_recursion():
    theta, y, cross = torch.diag(torch.tensor([2.0, 0.3, 0.0])).double(), points(3, 1), points(2, 3)
    f, g = torch.zeros(3, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    for _ in range(7):
        error = f - y
        f, g = f - 0.4 * theta @ error, g - 0.4 * cross @ error
    assert torch.allclose(ntk_predict(theta, y, cross, steps=7, rate=0.4).mean, g, rtol=1e-12)
    many = ntk_predict(theta, y, cross, steps=10**6, rate=1e-6).mean
    assert torch.allclose(many, ntk_predict(theta, y, cross, time=1.0).mean, rtol=1e-5)
    with pytest.raises(InputError, match="diverges"):
        ntk_predict(theta, y, cross, steps=7, rate=1.1)


def test_descent_starts_where_a_network_does():
    k, y = torch.eye(2).double() * 2, points(2, 1)
    start = points(2, 1), points(2, 1)
    assert torch.allclose(ntk_predict(k, y, k, start=start, time=0.0).mean, start[1])
    assert torch.allclose(ntk_predict(k, y, k, start=(start[0], start[0])).mean, y)


def test_covariance_over_networks():
    x = points(6, 3)
    net = plain_network(Activation("relu"), 3, Dense(0.0, 2.0))
    theta, k = wide_kernel(net, x), wide_kernel(net, x, get="kernel")
    train, test = slice(0, 4), slice(4, 6)
    kernels = k[train, train], k[test, train], k[test, test]
    found = ntk_predict(theta[train, train], points(4, 1), theta[test, train], kernels)
    m = theta[test, train] @ torch.linalg.inv(theta[train, train])
    exact = k[test, test] - m @ k[train, test] - k[test, train] @ m.T + m @ k[train, train] @ m.T
    assert torch.allclose(found.covariance, exact, atol=1e-9)
    untrained = ntk_predict(theta[train, train], points(4, 1), theta[test, train], kernels, time=0.0)
    assert torch.allclose(untrained.covariance, k[test, test])


@pytest.mark.deep
def test_training_follows_the_linearised_network():
    x, y = torch.randn(12, 4).double(), torch.randn(12, 1).double()
    errors = []
    for width in (32, 1024):
        net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1)).double()
        theta, start = empirical_ntk(net, x), net(x).detach()
        rate = 0.5 / float(torch.linalg.eigvalsh(theta).max())
        predicted = ntk_predict(theta, y, theta, steps=200, rate=rate, start=(start, start)).mean
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        for _ in range(200):
            optimizer.zero_grad()
            (0.5 * (net(x) - y).square().sum()).backward()
            optimizer.step()
        errors.append(float((net(x).detach() - predicted).norm() / (predicted - start).norm()))
    assert errors[1] < 0.1
    assert errors[1] < errors[0] / 3


def test_repeated_inputs_get_a_jitter_and_it_is_said():
    x = points(5, 3)[[0, 1, 2, 3, 4, 0]]
    k = wide_kernel(plain_network(Activation("relu"), 3, Dense(0.0, 2.0)), x)
    found = gp_predict(k, points(6, 1), k)
    assert 0 < found.jitter <= 1e-6
    with pytest.raises(InputError, match="not positive definite"):
        gp_predict(-torch.eye(3), torch.zeros(3, 1), torch.eye(3))


@pytest.mark.parametrize(
    ("network", "get"), some([("relu", "tangent"), ("relu", "kernel"), ("gelu", "tangent")], keep=2)
)
def test_digits(network, get):
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).numpy()
    train, test = order[:1000], order[1000:]
    assert NTKClassifier(network, get=get).fit(x[train], y[train]).score(x[test], y[test]) > 0.975


def test_the_estimators_in_the_tools_of_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")
    base = pytest.importorskip("sklearn.base")
    pipeline = pytest.importorskip("sklearn.pipeline")
    x = np.random.default_rng(0).normal(size=(80, 3))
    labels = np.where(x[:, 0] > 0, "right", "left")
    search = selection.GridSearchCV(NTKClassifier(), {"depth": [2, 3], "ridge": [1e-4, 1e-2]}, cv=3).fit(x, labels)
    assert search.best_score_ > 0.8
    assert set(search.predict(x)) <= {"left", "right"}
    assert base.is_classifier(NTKClassifier())
    assert base.is_regressor(base.clone(NTKRegressor(depth=2)))
    scores = selection.cross_val_score(pipeline.make_pipeline(NTKRegressor()), x, x[:, 0] * x[:, 1], cv=4)
    assert scores.mean() > 0.5


def test_scores_take_columns_of_targets():
    x = points(30, 3)
    y = (x[:, 0] > 0).long().numpy()
    assert NTKClassifier().fit(x, y).score(x, y[:, None]) == 1.0
    assert NTKRegressor().fit(x, x[:, 0]).score(x, x[:, :1]) > 0.9
    with pytest.raises(InputError, match="shape of the predictions"):
        NTKRegressor().fit(x, x[:, 0]).score(x, x[:1, 0])


def test_predictions_refuse_what_does_not_fit(unchecked):
    k, y, c = torch.eye(3).double(), points(3, 1), points(2, 3)
    for wrong in (torch.ones(1, 1), torch.full((2, 2), math.nan)):
        with pytest.raises(InputError, match="prior"):
            gp_predict(k, y, c, wrong)
        with pytest.raises(InputError, match="kernels"):
            ntk_predict(k, y, c, (k, c, wrong))
    with pytest.raises(InputError, match="start"):
        ntk_predict(k, y, c, start=(points(3), points(2)))
    with pytest.raises(InputError, match="only one of time and steps"):
        ntk_predict(k, y, c, time=1.0, steps=3)
    assert torch.allclose(ntk_predict(0 * k, y, c, steps=3, rate=0.1).mean, 0.3 * c @ y)


def test_estimators_refuse_what_makes_no_sense():
    x = points(4, 2)
    with pytest.raises(InputError, match="two classes"):
        NTKClassifier().fit(x, [1, 1, 1, 1])
    with pytest.raises(InputError, match="equal lengths"):
        NTKRegressor().fit(x, [1.0, 2.0])
    with pytest.raises(InputError, match="not fitted"):
        NTKClassifier().predict(x)
    with pytest.raises(InputError, match="3 features, but NTKClassifier is expecting 2"):
        NTKClassifier().fit(x, [0, 1, 0, 1]).predict(points(2, 3))
    with pytest.raises(InputError, match="softplus"):
        NTKClassifier("softplus").fit(x, [0, 1, 0, 1])
    with pytest.raises(InputError, match="no parameter"):
        NTKClassifier().set_params(width=3)
