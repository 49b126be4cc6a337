"""Critical points of activations compared with reference values, and activations that have none."""

import functools
import math

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import Activation
from commutant.theory import criticality
from depth import chosen, some

found_for = functools.cache(criticality)

TABLE = [
    ("linear", "scale-invariant", 1.0, 0.0, 1.0),
    ("relu", "scale-invariant", 1.0, 0.0, 2.0),
    (nn.LeakyReLU(0.3), "scale-invariant", 1.0, 0.0, 2 / 1.09),
    ("tanh", "zero", 0.0, 0.0, 1.0),
    ("sin", "zero", 0.0, 0.0, 1.0),
    ("erf", "zero", 0.0, 0.0, math.pi / 4),
    ("atan", "zero", 0.0, 0.0, 1.0),
    ("elu", "zero", 0.0, 0.0, 1.0),
    ("hardtanh", "zero", 0.0, 0.0, 1.0),  # linear near zero: which way the kernel goes is seen at 0.01 and above alone
    (nn.ReLU(inplace=True), "scale-invariant", 1.0, 0.0, 2.0),
    ("gelu", "half-stable", (3 + math.sqrt(17)) / 2, 0.1729223908, 1.9830582574),
    ("gelu_tanh", "half-stable", 3.5567728449, 0.1728951982, 1.9828882398),
    ("silu", "half-stable", 14.3201736181, 0.5551431707, 1.9880046783),
    ("mish", "half-stable", 1.6701691329, 0.0945217874, 2.0135240697),
]


@pytest.mark.parametrize(("source", "kind", "kernel", "bias", "weight"), TABLE)
def test_reference_values(source, kind, kernel, bias, weight):
    found = found_for(source)
    assert found.kind == kind
    assert found.kernel == pytest.approx(kernel, abs=1e-8)
    assert found.bias_variance == pytest.approx(bias, abs=2e-10)
    assert found.weight_variance == pytest.approx(weight, abs=2e-10)
    assert max(map(abs, found.residuals)) < (1e-5 if kind == "zero" else 1e-9)
    assert found


NONE = ["sigmoid", "softplus", "cos", "exp", lambda z: z**2, lambda z: z**3, lambda z: 0 * z]


@pytest.mark.parametrize("name", chosen(NONE, ["softplus", "exp", *NONE[-2:]]))
def test_none_is_said_to_be_none(name):
    found = criticality(name)
    assert not found
    assert found.kind == "none"
    assert math.isnan(found.weight_variance)
    assert "no critical point" in found.sentence


@pytest.mark.parametrize(
    ("name", "decay", "exponent"),
    [("tanh", 2.0, 1.0), ("sin", 1.0, 1.0), ("erf", 2.0, 1.0), ("atan", 2.0, 1.0), ("elu", math.nan, 2.0)],
)
def test_how_fast_kernels_and_angles_decay(name, decay, exponent):
    found = found_for(name)
    assert found.decay == pytest.approx(decay, abs=1e-9, nan_ok=True)
    assert found.exponent == pytest.approx(exponent, abs=1e-3)


@pytest.mark.parametrize("name", some(["tanh", "elu"]))
def test_the_kernel_of_tanh_and_elu_decays_as_the_class_says(name):
    act, k = Activation(name), torch.tensor(0.4, dtype=torch.float64)
    depth = 400 if name == "tanh" else 600
    for _ in range(depth):
        k = act.g(k)
    shape = 2 * depth * float(k) if name == "tanh" else float(k) * depth**2 / (2 * math.pi)
    assert shape == pytest.approx(1.0, abs=0.03)


def test_selu_is_not_critical_where_it_normalises_but_is_at_zero():
    act = Activation("selu")
    chi = act.chi(1.0)
    assert float(chi.parallel) == pytest.approx(0.78264788, abs=1e-8)
    assert float(chi.perpendicular) == pytest.approx(1.07157499, abs=1e-8)
    found = criticality("selu")
    assert found.kind == "zero"
    assert found.weight_variance < 0.5


def test_the_side_from_which_the_fixed_point_attracts():
    assert "attracts from above" in found_for("gelu").sentence
    assert "attracts from below" in found_for("silu").sentence
    assert "attracts from below" in found_for("mish").sentence


def test_a_jump_is_refused():
    with pytest.raises(InputError, match="jumps at 0"):
        criticality("step")
