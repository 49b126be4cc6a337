"""Ensembles of random networks compared with the recursions, and spectra of Jacobians with their moments."""

import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.theory import finite_width, jacobian_spectrum, measure_ensemble, spectrum_moments
from depth import some

VERTICES = ("four_point", "tangent_signal", "tangent_cross", "tangent_mixed")


def test_second_layer_vertices_are_exact_at_any_width():
    layers = {"bias_variance": 0.1, "weight_variance": 1.3, "bias_rate": 0.3, "weight_rate": 0.7}
    found = measure_ensemble("tanh", [8, 8], 40_000, **layers, tangent=True, generator=torch.Generator().manual_seed(0))
    theory = finite_width("tanh", [8], **layers)
    for name in (*VERTICES, "tangent_variance", "kernel", "tangent"):
        estimate, exact = getattr(found, name), getattr(theory, name).flatten(1)[:, 0]
        assert abs(float(estimate.value[1] - exact[1])) < 4 * float(estimate.error[1]), name
        assert float(estimate.error[1]) < 0.1 * abs(float(exact[1])), name


def test_relu_tangent_kernels_have_no_correction_at_any_width():
    layers = {"bias_variance": 0.3, "weight_variance": 1.7}
    found = measure_ensemble("relu", [4] * 4, 60_000, **layers, bias_rate=0.3, weight_rate=1.7, tangent=True,
                             generator=torch.Generator().manual_seed(1))  # fmt: skip
    theory = finite_width("relu", [4] * 3, **layers, bias_rate=0.3, weight_rate=1.7)
    assert abs(float(found.tangent.value[-1] - theory.tangent[-1].squeeze())) < 4 * float(found.tangent.error[-1])
    assert float(found.four_point.value[-1]) > 1.3 * float(theory.four_point[-1].squeeze())  # other vertices do


@pytest.mark.deep
def test_standard_errors_are_those_of_repetition():
    values, errors = [], []
    for seed in range(30):
        found = measure_ensemble(
            "relu", [48] * 3, 2000, weight_variance=2.0, generator=torch.Generator().manual_seed(seed)
        )
        values.append(found.four_point.value[-1])
        errors.append(found.four_point.error[-1])
    spread, claimed = float(torch.stack(values).std()), float(torch.stack(errors).mean())
    assert 0.6 < claimed / spread < 1.6


@pytest.mark.deep
def test_ten_thousand_networks_in_one_call():
    found = measure_ensemble("relu", [32, 32, 32], 10_000, weight_variance=2.0)
    assert found.networks == 10_000
    assert float(found.kernel.value[-1]) == pytest.approx(2, abs=5 * float(found.kernel.error[-1]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"widths": [1, 4], "networks": 10}, "at least 2"),
        ({"widths": [], "networks": 10}, "at least one width"),
        ({"widths": [4, 4], "networks": 1}, "at least 2"),
    ],
)
def test_ensembles_that_make_no_sense(arguments, says):
    with pytest.raises(InputError, match=says):
        measure_ensemble("tanh", **arguments, weight_variance=1.0)
    with pytest.raises(InputError, match="jumps"):
        measure_ensemble("sign", [4, 4], 10, weight_variance=1.0, tangent=True)


@pytest.mark.parametrize(("orthogonal", "variance"), some([(False, 12.0), (True, 6.0)]))
def test_squared_singular_values_of_relu_networks(orthogonal, variance):
    torch.manual_seed(0)
    means, spreads = [], []
    for _ in range(8):
        layers = []
        for _ in range(5):
            layer = nn.Linear(200, 200, bias=False)
            nn.init.orthogonal_(layer.weight) if orthogonal else nn.init.normal_(layer.weight, std=200**-0.5)
            layer.weight.data *= 2**0.5
            layers += [layer, nn.ReLU()]
        values = jacobian_spectrum(nn.Sequential(*layers), torch.randn(1, 200)).square()
        means.append(float(values.mean()))
        spreads.append(float(values.var() / values.mean() ** 2))
    mean, spread = spectrum_moments("relu", 5, weight_variance=2.0, orthogonal=orthogonal)
    assert (mean, spread) == (1.0, 5.0 if orthogonal else 10.0)
    assert sum(means) / 8 == pytest.approx(mean, rel=0.25)
    assert sum(spreads) / 8 == pytest.approx(variance, rel=0.2)  # the masks' own fluctuation comes on top


def test_isometry_is_for_orthogonal_and_nearly_linear_networks_alone(deep):
    depth = 50 if deep else 5
    near = spectrum_moments("tanh", depth, 1e-3, weight_variance=1.0, orthogonal=True)[1]
    assert near < 2e-4 * depth
    assert spectrum_moments("tanh", depth, 1e-3, weight_variance=1.0)[1] > 0.8 * depth
    assert spectrum_moments("relu", depth, weight_variance=2.0, orthogonal=True)[1] == depth
    with pytest.raises(InputError, match="jumps"):
        spectrum_moments("sign", 3, weight_variance=1.0)


def test_a_jacobian_of_integers(unchecked):
    with pytest.raises(InputError, match="real numbers"):
        jacobian_spectrum(nn.Linear(2, 2), torch.zeros(1, 2, dtype=torch.int64))
