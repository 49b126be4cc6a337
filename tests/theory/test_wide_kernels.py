"""Kernels of wide networks between many inputs: gradients, means of inputs, and refused arguments."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.algebra import Activation
from commutant.theory import Chain, Dense, KernelState, LayerNormalization, infinite_width, plain_network, wide_kernel
from depth import some


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_differences(f, x, step=1e-6):
    out = torch.zeros_like(x)
    for i in range(x.numel()):
        move = torch.zeros(x.numel(), dtype=x.dtype).index_fill(0, torch.tensor(i), step).view_as(x)
        out.view(-1)[i] = (f(x + move) - f(x - move)) / (2 * step)
    return out


NETS = {
    "relu": lambda: plain_network("relu", 3, Dense(0.0, 2.0)),
    "relu with biases": lambda: plain_network("relu", 3, Dense(0.1, 1.5, 1.0, 1.0)),
    "gelu": lambda: plain_network("gelu", 2, Dense(0.0, 1.5)),
    "normalized inputs": lambda: plain_network("relu", 2, Dense(0.1, 1.5)) @ Chain((LayerNormalization(1e-2),)),
}


WAYS = list(itertools.product(["tangent", "kernel"], [False, True], [False, True]))
# Of each network one way and its opposite come first, so that all eight run by default.
GRADIENTS = [(net, *WAYS[i ^ way]) for i, net in enumerate(NETS) for way in (0, 7, 1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize(("net", "get", "columns", "sphere"), some(GRADIENTS, keep=2, family=lambda case: case[0]))
def test_gradients_on_either_side_of_the_table(net, get, columns, sphere):
    network, others = NETS[net](), points(3, 5, seed=1) if columns else None
    x = points(4, 5)
    x = x / x.norm(dim=1, keepdim=True) if sphere else x
    x[3] = x[0]
    weight = points(4, len(others) if columns else 4, seed=2)
    few = x.clone().requires_grad_()
    (wide_kernel(network, few, others, get=get) * weight).sum().backward()
    rows = slice(1, 3) if net != "gelu" and not columns else slice(None)  # a repeated input stands on a cusp
    wanted = by_differences(lambda x: (wide_kernel(network, x, others, get=get) * weight).sum(), x)
    torch.testing.assert_close(few.grad[rows], wanted[rows], rtol=1e-5, atol=1e-5)
    # Among so many more rows, which would be read from a table.
    many = torch.cat([x, points(700, 5, seed=3)]).requires_grad_()
    part = wide_kernel(network, many, others, get=get)[:4, : weight.shape[1]]
    (part * weight).sum().backward()
    torch.testing.assert_close(many.grad[:4], few.grad, rtol=1e-9, atol=1e-9)
    assert float(many.grad[4:].abs().max()) == 0


def test_a_gradient_through_columns_alone_and_in_float32():
    network, x, y = NETS["relu with biases"](), points(4, 3), points(10, 3, seed=1)
    y.requires_grad_()
    wide_kernel(network, x, y).sum().backward()
    wanted = by_differences(lambda y: wide_kernel(network, x, y).sum(), y.detach())
    torch.testing.assert_close(y.grad, wanted, rtol=1e-5, atol=1e-6)
    low = y.detach().float().requires_grad_()
    wide_kernel(network, x, low).sum().backward()
    torch.testing.assert_close(low.grad, y.grad.float(), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not wide_kernel(network, x, y).requires_grad


@pytest.mark.parametrize("net", ["relu", "a later bias"])
def test_a_zero_row_has_no_gradient_before_a_kink(net):
    network = Chain((Dense(0.0, 2.0), *plain_network("relu", 2, Dense(0.1, 1.0)).maps[1:]))
    network = NETS["relu"]() if net == "relu" else network
    x = torch.cat([points(2, 3), torch.zeros(1, 3, dtype=torch.float64)])
    with pytest.raises(InputError, match="no gradient at an input of variance zero"):
        wide_kernel(network, x.clone().requires_grad_())
    wide_kernel(network, x[:2].requires_grad_(), x.detach()).sum().backward()  # as a constant it may stand there


@pytest.mark.parametrize("net", ["relu with biases", "gelu"])
def test_a_zero_row_has_a_gradient_where_the_kernel_is_smooth(net):
    network, weight = NETS[net](), points(3, 3, seed=2)
    x = torch.cat([points(2, 3), torch.zeros(1, 3, dtype=torch.float64)]).requires_grad_()
    (wide_kernel(network, x) * weight).sum().backward()
    wanted = by_differences(lambda x: (wide_kernel(network, x) * weight).sum(), x.detach())
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-5)


def test_a_gradient_that_is_not_finite_is_no_answer():
    class Rooted:
        homogeneous = False

        def __call__(self, state):
            return Dense(0.0, 1.0)(KernelState(*list(vars(state).values())[:5], (0 * state.kernel).abs().sqrt()))

    x = points(3, 2).requires_grad_()
    with pytest.raises(InputError, match="gradient of a wide kernel is not finite at input 0"):
        wide_kernel(Rooted(), x).sum().backward()


@pytest.mark.parametrize("sphere", [False, True])
def test_means_of_inputs_that_are_normalized_first_count(sphere):
    net = infinite_width(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 99), nn.ReLU(), nn.Linear(99, 1)))
    x = points(60, 5) + 3
    x = x / x.norm(dim=1, keepdim=True) * 5**0.5 if sphere else x
    normal = nn.functional.layer_norm(x, (5,))
    without = infinite_width(nn.Sequential(nn.Linear(5, 99), nn.ReLU(), nn.Linear(99, 1)), weight_variance=0.3)
    net = Chain((LayerNormalization(), without))
    for get in ("tangent", "kernel"):
        wanted = wide_kernel(without, normal, get=get)
        torch.testing.assert_close(wide_kernel(net, x, get=get), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(wide_kernel(net, x[:50], x, get=get), wanted[:50], rtol=1e-4, atol=1e-4)


X = torch.linspace(-1, 1, 12).view(4, 3)
WIDE = plain_network("relu", 2, Dense(0.0, 2.0))
REFUSED = {
    "a module": (lambda: wide_kernel(nn.Linear(3, 1), X), r"infinite_width\(module\).*got Linear"),
    "a name": (lambda: wide_kernel("relu", X), "plain_network.*got str"),
    "a function": (lambda: wide_kernel(torch.relu, X), "got builtin_function"),
    "a class": (lambda: wide_kernel(Dense, X), "got Dense"),
    "nothing": (lambda: wide_kernel(None, X), "got NoneType"),
    "an activation": (lambda: wide_kernel(Activation("relu"), X), "got Activation"),
    "an array": (lambda: wide_kernel(WIDE, X.numpy()), "ndarray"),
    "a list": (lambda: wide_kernel(WIDE, X.tolist()), "got list"),
    "an array of columns": (lambda: wide_kernel(WIDE, X, np.zeros((2, 3))), "ndarray"),
    "complex inputs": (lambda: wide_kernel(WIDE, X + 1j), "complex64"),
    "images": (lambda: wide_kernel(WIDE, X[None]), r"got \(1, 4, 3\)"),
    "no feature": (lambda: wide_kernel(WIDE, X[:, :0]), "at least 1"),
    "columns of another width": (lambda: wide_kernel(WIDE, X, X[:, :2]), "one width"),
    "another kernel": (lambda: wide_kernel(WIDE, X, get="ntk"), "tangent, kernel"),
    "a state of lists": (lambda: KernelState.of_inputs([[1.0]], X), "got list"),
    "no activation": (lambda: plain_network(3, 2, Dense(0.0, 1.0)), "name, an nn.Module or a function"),
    "no layer": (lambda: plain_network("relu", 2, nn.Linear(3, 3)), "Dense"),
    "half a layer": (lambda: plain_network("relu", 1.5, Dense(0.0, 1.0)), "whole number"),
    "a variance as text": (lambda: Dense("1", 1.0), "number"),
    "a variance that is NaN": (lambda: Dense(0.0, float("nan")), "finite"),
    "a chain of modules": (lambda: Chain((nn.Linear(3, 3),)), "map of kernels"),
    "a list for a chain": (lambda: Chain([Dense(0.0, 1.0)]), "tuple"),
    "a branch that is no map": (lambda: wide_kernel(Chain(()), None), "NoneType"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_calls_get_one_sentence(case, unchecked):
    make, says = REFUSED[case]
    with pytest.raises(InputError, match=says) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_inputs_of_other_kinds_count_as_numbers(unchecked):
    whole = torch.tensor([[1, 2, 3], [0, -1, 2]])
    wanted = wide_kernel(WIDE, whole.double())
    for dtype in (torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32):
        torch.testing.assert_close(wide_kernel(WIDE, whole.to(dtype)), wanted)
    assert wide_kernel(WIDE, X[:0], X).shape == (0, 4)
    assert wide_kernel(WIDE, X[:0].requires_grad_(), X).shape == (0, 4)
