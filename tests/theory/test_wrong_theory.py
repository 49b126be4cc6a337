"""Wrong types, ranks, dtypes and sizes of widths, depths and kernels, each refused with one sentence."""

import math

import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.theory import (
    AlphaDropout,
    Chain,
    Dense,
    critical_,
    depth_scale,
    finite_width,
    fixed_point,
    four_point_exact,
    gamma_for_growth,
    jacobian_spectrum,
    kernel_flow,
    lecun_normal_,
    measure_ensemble,
    moment_map,
    optimal_ratio,
    phase_diagram,
    selu_parameters,
    skip_for,
    spectrum_moments,
)

SKEW, IMPOSSIBLE = torch.tensor([[1.0, 0.9], [0.1, 1.0]]), torch.tensor([[1.0, 2.0], [2.0, 1.0]])
X, NET, W = torch.linspace(-1, 1, 12).view(4, 3), nn.Linear(3, 2), {"weight_variance": 2.0}
CASES = {
    "widths of 2.5": (lambda: finite_width("relu", [2.5], **W), "whole number"),
    "a width as a number": (lambda: finite_width("relu", 64, **W), "sequence"),
    "a width of zero": (lambda: finite_width("relu", [0], **W), "at least 1"),
    "a gram as text": (lambda: finite_width("relu", [8], "1", **W), "gram"),
    "a gram that is not square": (lambda: finite_width("relu", [8], X, **W), "square"),
    "a gram that is not symmetric": (lambda: finite_width("relu", [8], SKEW, **W), "symmetric"),
    "a gram that no inputs have": (lambda: finite_width("relu", [8], IMPOSSIBLE, **W), "negative"),
    "a complex gram": (lambda: finite_width("relu", [8], torch.eye(2) + 0j, **W), "real"),
    "an empty gram": (lambda: finite_width("relu", [8], torch.zeros(0, 0), **W), "at least one input"),
    "no networks": (lambda: measure_ensemble("relu", [8], 0, **W), "at least 2"),
    "half a network": (lambda: measure_ensemble("relu", [8], 2.5, **W), "whole number"),
    "no widths": (lambda: measure_ensemble("relu", [], 4, **W), "at least one"),
    "widths of 1.5": (lambda: measure_ensemble("relu", [4, 2.5], 4, **W), "whole number"),
    "a rate that is NaN": (lambda: measure_ensemble("relu", [4], 4, weight_rate=math.nan, **W), "weight_rate"),
    "half a layer": (lambda: kernel_flow("relu", 1.5, **W), "depth"),
    "a kernel as text": (lambda: kernel_flow("relu", 3, "1", **W), "kernel must be a number"),
    "a complex kernel": (lambda: kernel_flow("relu", 3, torch.ones(2) + 0j, **W), "real"),
    "a correlation that is NaN": (lambda: kernel_flow("relu", 3, correlation=math.nan, **W), "between -1 and 1"),
    "a scale of text": (lambda: depth_scale("1"), "susceptibility"),
    "a scale of infinity": (lambda: depth_scale(math.inf), "susceptibility"),
    "half a layer of a spectrum": (lambda: spectrum_moments("relu", 0.5, **W), "depth"),
    "a spectrum of an array": (lambda: jacobian_spectrum(NET, X.numpy()), "ndarray"),
    "a spectrum of a number": (lambda: jacobian_spectrum(NET, torch.tensor(1.0)), "0-dimensional"),
    "a spectrum of integers": (lambda: jacobian_spectrum(NET, X.long()), "real numbers"),
    "a spectrum of a name": (lambda: jacobian_spectrum("relu", X), "got str"),
    "a spectrum of another width": (lambda: jacobian_spectrum(NET, X[:, :2]), "fails on these inputs"),
    "a spectrum of several outputs": (lambda: jacobian_spectrum(nn.GRU(3, 2), X), "one tensor"),
    "a fixed point of text": (lambda: selu_parameters("0"), "mean must be a number"),
    "a probability of text": (lambda: AlphaDropout("0.1"), "p must be a probability, got '0.1'"),
    "a model for a weight": (lambda: lecun_normal_(NET), "layer.weight, got Linear"),
    "half a layer of growth": (lambda: gamma_for_growth(2.5), "depth must be a whole number"),
    "a depth of text": (lambda: gamma_for_growth("8"), "depth must be a whole number"),
    "a name for a mean": (lambda: moment_map("selu", 1.0), "mean must be a number or a tensor"),
    "a point by name": (lambda: fixed_point("selu"), "omega must be a number"),
    "outputs of text": (lambda: optimal_ratio("relu", "10"), "outputs must be"),
    "a skip of text": (lambda: skip_for("relu", "9", 9, 9), "depth, width and outputs"),
    "widths that are one": (lambda: four_point_exact("relu", 8), "widths must be a list"),
    "a class to initialize": (lambda: critical_(nn.Linear), "the class Linear; call it"),
    "a name to initialize": (lambda: critical_("net"), "an nn.Module, got str"),
    "a plane of a name": (lambda: phase_diagram("relu"), "an nn.Module, got str"),
    "a chain of inputs": (lambda: Chain((Dense(0.0, 1.0),))(X), "maps a KernelState.*got Tensor"),
    "a slope that is infinite": (lambda: jacobian_spectrum(lambda x: (0 * x).abs().sqrt(), X), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_sentence(case, unchecked):
    make, sentence = CASES[case]
    with pytest.raises(InputError, match=sentence) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_spectrum_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=0.5)).eval()
    model.register_buffer("calls", torch.zeros(()))
    model.register_forward_hook(lambda module, args, out: out + 0 * module.calls.add_(1))
    jacobian_spectrum(model, X)
    assert float(model.calls) == 0
