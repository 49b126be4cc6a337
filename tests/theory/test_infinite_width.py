"""Infinite-width kernels compared with random wide networks of many architectures, and refused modules."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant._errors import InputError
from commutant.theory import (
    Chain,
    Dense,
    KernelState,
    LayerNormalization,
    Pointwise,
    Residual,
    Scale,
    empirical_ntk,
    infinite_width,
    plain_network,
    wide_kernel,
)

N, D, OUT = 256, 6, 32


class Optional(nn.Module):
    """Network with one input and optional further arguments."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(D, N), nn.Linear(N, OUT)

    def forward(self, x, mask=None, scale=0.5):
        h = torch.relu(self.into(x) * scale)
        return self.out(h if mask is None else h * mask)


class Net(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.pass_ = forward
        self.into, self.inside, self.other = nn.Linear(D, N), nn.Linear(N, N), nn.Linear(D, N)
        self.out, self.relu = nn.Linear(N, OUT), nn.ReLU()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.pass_(self, x)


def residual(act):
    """Build h + inside(act(h)) with another function after the sum."""

    def forward(net, x):
        h = net.into(x)
        return net.out(torch.tanh(act(net, h)))

    return forward


FOLLOWED = {
    "optional arguments": Optional,
    "plain": lambda: nn.Sequential(nn.Linear(D, N), nn.ReLU(), nn.Linear(N, N), nn.Tanh(), nn.Linear(N, OUT)),
    "layer normalization first": lambda: nn.Sequential(nn.LayerNorm(D), nn.Linear(D, N), nn.ReLU(), nn.Linear(N, OUT)),
    "layer normalization of an activation": lambda: nn.Sequential(
        nn.Linear(D, N), nn.Softplus(), nn.LayerNorm(N), nn.Linear(N, N), nn.ReLU(), nn.Linear(N, OUT)
    ),
    "layer normalization of a layer": lambda: nn.Sequential(
        nn.Linear(D, N), nn.LayerNorm(N), nn.ReLU(), nn.Linear(N, OUT)
    ),
    "one module for two activations": lambda: Net(lambda n, x: n.out(n.relu(n.inside(n.relu(n.into(x)))))),
    "a method of the name of a module": lambda: Net(lambda n, x: n.out(n.relu(n.inside(n.into(x).relu())))),
    "residual": lambda: Net(residual(lambda n, h: h + n.inside(n.relu(h)))),
    "residual with dropout and scale": lambda: Net(
        residual(lambda n, h: h * 0.7 + n.drop(n.inside(n.relu(h))) / 2), drop=nn.Dropout().eval()
    ),
    "residual of activations": lambda: Net(
        lambda n, x: n.out((lambda z: F.relu(z) + n.inside(torch.sigmoid(z)))(n.into(x)))
    ),
    "residual of inputs": lambda: Net(
        lambda n, x: n.out(n.relu(n.into(x + n.back(n.relu(n.other(x)))))), back=nn.Linear(N, D)
    ),
    "two layers of one input": lambda: Net(lambda n, x: n.out(torch.sigmoid(n.into(x) + n.other(x)))),
    "residual that is read again": lambda: Net(
        lambda n, x: (lambda h: (lambda g: n.out(n.relu(g + h + n.third(n.relu(g)))))(n.inside(n.relu(h))))(n.into(x)),
        third=nn.Linear(N, N),
    ),
    "difference": lambda: Net(residual(lambda n, h: -h * 0.5 - n.inside(n.relu(h)))),
    "function of dropout": lambda: Net(lambda n, x: n.out(F.dropout(n.relu(n.into(x)), 0.5, n.training))).eval(),
    "in place": lambda: nn.Sequential(nn.Linear(D, N), nn.ReLU(inplace=True), nn.Linear(N, OUT)),
    "frozen": lambda: nn.Sequential(nn.Linear(D, N).requires_grad_(False), nn.ReLU(), nn.Linear(N, OUT)),
    "an activation at the end": lambda: nn.Sequential(nn.Linear(D, N), nn.GELU(), nn.Linear(N, N), nn.Sigmoid()),
    "PReLU without biases": lambda: nn.Sequential(
        nn.Linear(D, N, bias=False), nn.PReLU(), nn.Linear(N, OUT, bias=False)
    ),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_wide_networks_have_the_kernels_of_their_limit(name, deep):
    torch.manual_seed(0)
    x = torch.randn(4, D) + 1.5
    x[2] = 0.3 * x[0] + 0.01
    kernel, limit, tangent, tangent_limit = (torch.zeros(4, 4, dtype=torch.float64) for _ in range(4))
    draws, times = 40 if deep else 16, 2
    for draw in range(draws):
        net = FOLLOWED[name]()
        with torch.no_grad():
            y = net(x).double()
        kernel += y @ y.T / y.shape[1] / draws
        if draw < times:
            spec = infinite_width(net)
            state = spec(KernelState.of_inputs(x, x))
            limit += state.kernel / times
            tangent += empirical_ntk(net, x)
            tangent_limit += state.tangent
    # Of 40 networks of 64 outputs, and two of width 256: 0.04 and 0.08. The errors that this is for are 0.3 to 2.
    assert float((kernel - limit).norm() / limit.norm()) < 0.15
    assert float((tangent - tangent_limit).norm() / tangent_limit.norm()) < 0.15
    assert torch.allclose(wide_kernel(spec, x), state.tangent, rtol=1e-9)


def broadcast(n, x):
    return n.out(n.relu(n.into(x) + n.one(x)))


def aliased(n, x):
    h = n.into(x)
    before = h
    h += n.inside(F.gelu(h))
    return n.out(torch.tanh(before))


def overwritten(n, x):
    h = n.into(x)
    a = F.relu(h, True)
    return n.out(torch.tanh(h + n.inside(a)))


def after(value):
    """Build two layers with an activation between them, and change them by a function."""
    net = nn.Sequential(nn.Linear(D, N), nn.ReLU(), nn.Linear(N, N), nn.Linear(N, OUT))
    value(net)
    return net


def tied(net):
    net[3] = nn.Linear(N, N)
    net[3].weight = net[2].weight


class Two(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)
        self.layer = nn.Linear(3, 3)

    def forward(self, x, y):
        return self.layer(x) + self.layer(y)


def cell(n, x):
    h = n.into(x)
    return n.out(n.relu((h + n.inside(n.relu(h))) + (h + n.other(x))))


def patched(net):
    inner = net[0].forward
    net[0].forward = lambda x: 2 * inner(x)


@torch.no_grad()
def uneven(net):
    net[0].weight[:, 0] *= 6


@torch.no_grad()
def of_low_rank(net):
    net[2].weight.copy_(torch.randn(N, 2) @ torch.randn(2, N))


REFUSED = {
    "a value on both sides of a sum": (lambda: Net(cell), "both read into"),
    "a normalized value and itself": (
        lambda: Net(lambda n, x: (lambda h: n.out(h + n.norm(h)))(n.into(x)), norm=nn.LayerNorm(N)), "both read into"
    ),
    "two activations": (
        lambda: Net(lambda n, x: n.out(n.relu(n.into(x)) + n.relu(n.other(x)))), "neither of which is a sum of outputs"
    ),
    "dropout": (lambda: Net(lambda n, x: n.out(F.dropout(n.relu(n.into(x))))), "is random"),
    "division by zero": (lambda: Net(lambda n, x: n.out(n.relu(n.into(x) / 0))), "can't be followed"),
    "two inputs": (Two, "more than one input"),
    "complex weights": (lambda: nn.Linear(3, 3, dtype=torch.complex64), "complex"),
    "no values": (lambda: nn.Linear(3, 3, device="meta"), "meta"),
    "a layer with another pass": (lambda: after(patched), "forward of its own"),
    "columns of two sizes": (lambda: after(uneven), "columns of the weights of layer 0"),
    "weights of low rank": (lambda: after(of_low_rank), "the weights of layer 2 differ in size"),
    "an activation of an activation": (
        lambda: nn.Sequential(nn.Linear(D, N), nn.ReLU(), nn.ReLU(), nn.Linear(N, 1)), "not Gaussian"
    ),
    "an activation of the inputs": (lambda: nn.Sequential(nn.Tanh(), nn.Linear(D, 1)), "input of the network"),
    "an activation of normalized inputs": (
        lambda: nn.Sequential(nn.LayerNorm(D), nn.Tanh(), nn.Linear(D, 1)), "not Gaussian"
    ),
    "an activation of a normalized activation": (
        lambda: nn.Sequential(nn.Linear(D, N), nn.Softplus(), nn.LayerNorm(N), nn.ReLU(), nn.Linear(N, 1)),
        "not Gaussian",
    ),
    "an activation after a sum with an activation": (
        lambda: Net(lambda n, x: n.out(n.relu(n.relu(n.into(x)) + n.other(x)))), "not Gaussian"
    ),
    "an activation after a sum with inputs": (
        lambda: Net(lambda n, x: n.relu(x + n.back(n.into(x))), back=nn.Linear(N, D)), "not Gaussian"
    ),
    "a sum that spreads one neuron": (lambda: Net(broadcast, one=nn.Linear(D, 1)), "1 and 256 features"),
    "a value written over by a sum": (lambda: Net(aliased), r"\+="),
    "a value written over by an activation": (lambda: Net(overwritten), "overwritten"),
    "copied layers": (lambda: after(lambda net: net.insert(3, copy.deepcopy(net[2]))), "2 and 3 have the same"),
    "tied layers": (lambda: after(tied), "2 and 3 have the same"),
    "biases of one value": (lambda: after(lambda net: nn.init.constant_(net[0].bias, 0.1)), "biases of layer 0"),
    "weights of one value": (lambda: after(lambda net: nn.init.ones_(net[2].weight)), "weights of layer 2"),
    "a hook": (lambda: after(lambda net: net[1].register_forward_hook(lambda m, a, y: 2 * y)), "hooks"),
    "random slopes": (lambda: nn.Sequential(nn.Linear(D, N), nn.RReLU()), "eval"),
    "a quotient rounded down": (
        lambda: Net(lambda n, x: torch.div(n.into(x), 0.1, rounding_mode="floor")), "can't be followed"
    ),
    "rows joined": (lambda: nn.Sequential(nn.Flatten(0), nn.Linear(D, 1)), "start_dim=1"),
    "computed weights": (lambda: after(lambda net: nn.utils.spectral_norm(net[2])), "hooks"),
    "layers that do not fit": (lambda: nn.Sequential(nn.Linear(D, N), nn.Linear(D, N)), "fails on inputs"),
    "a lazy module": (lambda: nn.Sequential(nn.LazyLinear(3)), "one batch first"),
    "no module": (lambda: torch.relu, "nn.Module"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_such_limit_is_refused(case, unchecked):
    make, says = REFUSED[case]
    with pytest.raises(InputError, match=says):
        infinite_width(make())


def test_given_variances_stand_for_other_weights():
    net = after(lambda net: nn.init.constant_(net[0].bias, 0.1))
    net.insert(3, copy.deepcopy(net[2]))
    spec = infinite_width(net, weight_variance=2.0, bias_variance=0.01)
    assert [op.weight_variance for op, _ in spec.steps if isinstance(op, Dense)] == [2.0] * 4
    bare = infinite_width(nn.Linear(3, 3, bias=False), bias_variance=0.5)
    assert bare.steps[1][0].bias_variance == 0


@pytest.mark.parametrize("init", [nn.init.orthogonal_, nn.init.trunc_normal_, nn.init.xavier_uniform_, nn.init.zeros_])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 300), (300, 2), (64, 64), (3, 2000)])
def test_usual_initializations_are_even(init, shape):
    for seed in range(5):
        torch.manual_seed(seed)
        layer = nn.Linear(*shape)
        init(layer.weight)
        infinite_width(layer)


def test_inputs_of_another_width_are_refused(unchecked):
    spec, x = infinite_width(nn.Linear(4, 3)), torch.randn(2, 5)
    for call in (lambda: spec(KernelState.of_inputs(x, x)), lambda: wide_kernel(spec, x)):
        with pytest.raises(InputError, match="takes inputs of 4 features, got 5"):
            call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Chain((Dense(0.1, 1.0),)) ** -1, "power"),
        (lambda: Chain((Dense(0.1, 1.0),)) ** 1.5, "power"),
        (lambda: Chain() @ Dense(0.1, 1.0), "Chain"),
        (lambda: Scale("2"), "factor"),
        (lambda: Scale(float("nan")), "factor"),
    ],
)
def test_wrong_maps_are_refused(call, says, unchecked):
    with pytest.raises(InputError, match=says):
        call()


@pytest.mark.parametrize("part", [nn.PReLU, lambda: nn.LayerNorm(N)])
def test_parts_that_train_beside_the_weights_are_refused_in_ntk_parametrization(part, unchecked):
    net = nn.Sequential(nn.Linear(D, N), part(), nn.Linear(N, OUT))
    infinite_width(net)  # there they are a part in N of the weights
    with pytest.raises(InputError, match="freeze"):
        infinite_width(net, parametrization="ntk")
    net[1].requires_grad_(False)
    infinite_width(net, parametrization="ntk")


def test_a_wide_kernel_has_second_derivatives():
    net = plain_network("gelu", 1, Dense(0.1, 2.0))
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: wide_kernel(net, x), x)


def test_tracing_leaves_the_module_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(3, 3), 0
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.last = x
            return self.layer(x)

    net = Counting()
    before = dict(vars(net))
    infinite_width(net)
    assert vars(net) == before


def test_maps_by_hand_need_a_dense_before_an_activation():
    x, relu = torch.randn(3, 4), "relu"
    maps = Chain((Dense(0.1, 1.0),)), Pointwise(torch_activation(relu))
    for chain in (Chain((maps[1],)), Chain((*maps, maps[1])), Chain((LayerNormalization(), maps[1]))):
        with pytest.raises(InputError, match="not Gaussian"):
            chain(KernelState.of_inputs(x, x))
    ends = infinite_width(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), infinite_width(nn.Sequential(nn.Identity()))
    for branch in (Chain(), maps[1], Chain((Dense(0.1, 1.0), maps[1])), LayerNormalization(), Scale(2.0), *ends):
        with pytest.raises(InputError, match="must end in a Dense"):
            Residual(branch)
    Residual(Chain((maps[1], Dense(0.1, 1.0), LayerNormalization(), Scale(2.0))))
    Residual(infinite_width(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LayerNorm(4))))


def torch_activation(name):
    from commutant.algebra import Activation

    return Activation(name)
