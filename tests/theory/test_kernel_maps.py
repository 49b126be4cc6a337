"""Kernels of wide networks: reference values, the monoid of layers, and agreement with random networks."""

import math

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import Activation
from commutant.theory import Chain, Dense, KernelState, LayerNormalization, Pointwise, Residual, plain_network

RELU, TANH = Activation("relu"), Activation("tanh")


def state_of(gram, *, tangent=True):
    gram = torch.as_tensor(gram, dtype=torch.float64)
    q, zero = gram.diagonal().clone(), torch.zeros(len(gram), dtype=torch.float64)
    return KernelState(gram, q, q, zero, zero, torch.zeros_like(gram) if tangent else None)


def inputs(count=5, width=7, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(a, b, tolerance=0.0):
    for x, y in zip(vars(a).values(), vars(b).values(), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_three_layers_of_relu_at_he_initialisation():
    net = plain_network(RELU, 3, Dense(0.0, 2.0, bias_rate=1.0, weight_rate=1.0))
    out = net(state_of([[1.0, 0.5], [0.5, 1.0]]))
    assert out.kernel[0].tolist() == pytest.approx([2.0, 1.3678113], abs=1e-7)
    assert out.tangent[0, 0] == 6.0  # not 5.99999996
    assert float(out.tangent[0, 1]) == pytest.approx(3.5321932, abs=1e-7)
    assert out.left[0] == out.kernel[0, 0]


def test_the_two_inputs_of_the_reference_table():
    net = plain_network(TANH, 3, Dense(0.1, 1.3, bias_rate=0.3, weight_rate=0.7))
    out = net(state_of([[1.0, 0.4], [0.4, 0.8]]))
    kernel, tangent = [0.527211245, 0.317622884, 0.510748965], [1.32271913, 0.84701459, 1.29090009]
    assert out.kernel[[0, 0, 1], [0, 1, 1]].tolist() == pytest.approx(kernel, abs=1e-9)
    assert out.tangent[[0, 0, 1], [0, 1, 1]].tolist() == pytest.approx(tangent, abs=1e-8)


@pytest.mark.parametrize("act", [RELU, TANH], ids=["relu", "tanh"])
def test_depth_composes_bit_for_bit(act):
    layer = Chain((Pointwise(act), Dense(0.1, 1.4)))
    start = Dense(0.1, 1.4)(KernelState.of_inputs(inputs(), inputs()))
    same((layer**5)(start), (layer**2 @ layer**3)(start))
    same(((layer @ layer) @ layer)(start), (layer @ (layer @ layer))(start))
    same((Chain() @ layer)(start), (layer @ Chain())(start))


def test_linear_layers_multiply_as_affine_maps():
    start = state_of([[1.0, 0.3], [0.3, 2.0]], tangent=False)
    b, w, b2, w2 = 0.3, 1.7, 0.2, 0.6
    same(Chain((Dense(b, w), Dense(b2, w2)))(start), Dense(b2 + w2 * b, w2 * w)(start), 1e-15)


def test_the_tangent_kernel_is_the_sum_of_its_layers_and_more_than_the_last():
    depth, x = 4, inputs()
    whole = plain_network(TANH, depth, Dense(0.1, 1.3, 0.3, 0.7))(KernelState.of_inputs(x, x)).tangent
    total = torch.zeros_like(whole)
    for trained in range(depth):
        layers = []
        for i in range(depth):
            rates = (0.3, 0.7) if i == trained else (0.0, 0.0)
            layers += [Dense(0.1, 1.3, *rates), Pointwise(TANH)]
        part = Chain(tuple(layers[:-1]))(KernelState.of_inputs(x, x)).tangent
        total += part
    torch.testing.assert_close(whole, total, rtol=1e-12, atol=1e-12)
    assert float(torch.linalg.eigvalsh(whole - part).min()) > -1e-12


@pytest.mark.parametrize("act", ["relu", "tanh", "gelu"])
def test_symmetries_of_kernels(act):
    net = plain_network(Activation(act), 3, Dense(0.1, 1.5))
    x, y = inputs(6, 7), inputs(4, 7, seed=1)
    out = net(KernelState.of_inputs(x, y))
    turn = torch.linalg.qr(inputs(7, 7, seed=2)).Q
    same(net(KernelState.of_inputs(x @ turn, y @ turn)), out, 1e-10)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    moved = net(KernelState.of_inputs(x[order], y))
    torch.testing.assert_close(moved.tangent, out.tangent[order], rtol=1e-12, atol=1e-12)
    own = net(KernelState.of_inputs(x, x))
    assert float(torch.linalg.eigvalsh(own.kernel).min()) > -1e-12
    assert float(torch.linalg.eigvalsh(own.tangent).min()) > -1e-12
    assert bool((own.kernel.square() <= own.left[:, None] * own.right[None] * (1 + 1e-12)).all())


@pytest.mark.deep
def test_a_hundred_thousand_random_networks_agree_on_average():
    """Check that the mean empirical kernels of ReLU networks are the infinite ones, here at width 4."""
    torch.manual_seed(0)
    count, n, c_b, c_w = 60_000, 4, 0.3, 1.7
    x = torch.tensor([0.5, -1.0, 2.0])
    z = x @ (torch.randn(count, 3, n) * math.sqrt(c_w / 3)) + torch.randn(count, 1, n).squeeze(1) * math.sqrt(c_b)
    tangent = (c_b + c_w * x.square().mean()) * torch.eye(n).expand(count, n, n)
    for _ in range(3):
        weights = torch.randn(count, n, n) * math.sqrt(c_w / n)
        active = (z > 0).float()
        s = z * active
        passed = weights * active[:, None]
        grow = c_b + c_w * s.square().mean(-1)
        tangent = grow[:, None, None] * torch.eye(n) + passed @ tangent @ passed.mT
        z = (weights @ s[..., None])[..., 0] + torch.randn(count, n) * math.sqrt(c_b)
    want = plain_network(RELU, 4, Dense(c_b, c_w))(KernelState.of_inputs(x[None], x[None]))
    found = tangent.diagonal(dim1=1, dim2=2).double().mean(-1)
    error = float(found.std()) / math.sqrt(count)
    assert abs(float(found.mean()) - float(want.tangent)) < 4 * error
    squares = z.double().square().mean(-1)
    assert abs(float(squares.mean()) - float(want.kernel)) < 4 * float(squares.std()) / math.sqrt(count)


def test_layer_normalisation_and_residuals_against_wide_networks():
    torch.manual_seed(1)
    n, x = 8192, inputs(3, 16).float()
    first, second = nn.Linear(16, n, bias=False), nn.Linear(n, n, bias=False)
    nn.init.normal_(first.weight, std=math.sqrt(1.5 / 16))
    nn.init.normal_(second.weight, std=math.sqrt(0.8 / n))
    with torch.no_grad():
        z = first(x)
        out = 0.7 * z + second(torch.relu(z))
        normal = torch.nn.functional.layer_norm(torch.relu(out), (n,))
    maps = (Dense(0.0, 1.5), Residual(Chain((Pointwise(RELU), Dense(0.0, 0.8))), gamma=0.7))
    state = Chain(maps)(KernelState.of_inputs(x, x))
    torch.testing.assert_close((out @ out.T / n).double(), state.kernel, rtol=0.1, atol=0.05)
    state = LayerNormalization()(Pointwise(RELU)(state))
    torch.testing.assert_close((normal @ normal.T / n).double(), state.kernel, rtol=0.05, atol=0.05)
    assert state.left.tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_zero_inputs_one_input_and_bad_ones(unchecked):
    net = plain_network(RELU, 3, Dense(0.0, 2.0))
    out = net(KernelState.of_inputs(torch.zeros(2, 3), torch.zeros(2, 3)))
    assert out.kernel.abs().max() == 0
    assert bool(torch.isfinite(out.tangent).all())
    assert net(KernelState.of_inputs(torch.zeros(0, 3), torch.ones(2, 3))).tangent.shape == (0, 2)
    with pytest.raises(InputError, match="one width"):
        KernelState.of_inputs(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="finite"):
        KernelState.of_inputs(torch.full((1, 2), math.nan), torch.zeros(2, 2))
    with pytest.raises(InputError, match="weight_variance must be finite and not negative, got -1"):
        Dense(0.0, -1.0)
    with pytest.raises(InputError, match="depth must be a whole number of at least 1, got 0"):
        plain_network(RELU, 0, Dense(0.0, 1.0))
