"""Invalid arguments of the room's functions, each refused with one sentence that names it."""

import numpy as np
import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.algebra import Activation
from commutant.theory import (
    SELU,
    AlphaDropout,
    Dense,
    LayerNormalization,
    NTKClassifier,
    NTKRegressor,
    criticality,
    edge_of_chaos,
    empirical_ntk,
    finite_width,
    four_point_exact,
    gamma_for_growth,
    is_self_normalizing,
    kernel_flow,
    layer_shares,
    lecun_normal_,
    ntk_vector_product,
    optimal_ratio,
    param_groups,
    plain_network,
    residual_four_point,
    skip_for,
    swap,
    wide_kernel,
)
from depth import some

X = torch.linspace(-1, 1, 12).view(4, 3)


def _net():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


def _wide():
    return plain_network("relu", 3, Dense(0.0, 2.0))


CASES = {
    "PReLU of channels": (lambda: Activation(nn.PReLU(8)), "fails on a vector"),
    "a function that compares": (lambda: Activation(lambda z: z > 0), "torch.bool"),
    "a complex function": (lambda: Activation(lambda z: z.to(torch.complex128)), "complex"),
    "a sum": (lambda: Activation(lambda z: z.sum()), "elementwise"),
    "nothing": (lambda: Activation(lambda z: None), "NoneType"),
    "shapes that do not go together": (
        lambda: Activation("relu").dual(torch.ones(3), torch.ones(2), torch.zeros(4)),
        r"broadcast, got \(3,\), \(2,\), \(4,\)",
    ),
    "no term": (lambda: Activation("tanh").hermite(1.0, 0), "terms must be"),
    "a NumPy array": (lambda: wide_kernel(_wide(), np.zeros((3, 2))), "ndarray"),
    "a vector of inputs": (lambda: wide_kernel(_wide(), torch.ones(5)), r"got \(5,\)"),
    "words to regress on": (lambda: NTKRegressor().fit(X, ["a", "b", "c", "d"]), "targets must be numbers"),
    "targets that are NaN": (lambda: NTKRegressor().fit(X, [0.0, 1.0, float("nan"), 2.0]), "finite"),
    "a module as a map of kernels": (lambda: NTKRegressor(network=_net()).fit(X, [1.0, 2, 3, 4]), "infinite_width"),
    "one class": (lambda: NTKClassifier().fit(X, [1, 1, 1, 1]), "two classes"),
    "inputs of another width": (lambda: empirical_ntk(_net(), torch.ones(3, 7)), "fails on these inputs"),
    "NaN in a product": (lambda: ntk_vector_product(_net(), X * float("nan"), torch.ones(4, 1)), "finite"),
    "a model with several outputs": (
        lambda: ntk_vector_product(nn.LSTM(3, 4), torch.ones(2, 5, 3), torch.ones(2, 5, 4)),
        "tuple",
    ),
    "weights without variance": (lambda: finite_width("tanh", [8], weight_variance=0.0), "positive"),
    "a width of zero": (lambda: four_point_exact("relu", [0, 2]), "at least 1"),
    "a kernel of zero": (
        lambda: residual_four_point("relu", 4, 0.0, gamma=0.5, weight_variance=1.0),
        "positive number",
    ),
    "no outputs": (lambda: skip_for("relu", 10, 10, outputs=0), "outputs"),
    "a grid of one point": (
        lambda: is_self_normalizing("selu", points=1),
        "points must be a whole number of at least 2",
    ),
    "a negative eps": (lambda: LayerNormalization(-1.0), "eps"),
    "an empty weight": (lambda: lecun_normal_(torch.zeros(3, 0)), "fan-in"),
    "dropout for ReLU": (lambda: AlphaDropout(0.5, nn.ReLU()), "ReLU"),
    "a step": (lambda: edge_of_chaos(torch.sign), "jumps"),
    "a function of NumPy": (lambda: criticality(np.tanh), "torch.tanh"),
    "the class of a layer": (lambda: criticality(nn.Linear), "needs arguments"),
    "a class that is no module": (lambda: criticality(dict), "the class dict"),
    "integers for SELU": (lambda: SELU()(torch.ones(3, dtype=torch.int64)), "int64"),
    "integers for dropout": (lambda: AlphaDropout(0.5)(torch.ones(3, dtype=torch.int64)), "int64"),
    "rates of a class": (lambda: param_groups(nn.Linear, X, 0.1), "an nn.Module, got type"),
    "a swap in a class": (lambda: swap(nn.Sequential), "an nn.Module, got type"),
    "a kernel that is NaN": (lambda: four_point_exact("relu", [8], float("nan")), "positive"),
    "a negative weight variance": (
        lambda: residual_four_point("relu", 3, gamma=0.5, weight_variance=-1.0),
        "weight_variance",
    ),
    "shares without weights": (lambda: layer_shares("tanh", 3, weight_variance=0.0), "positive"),
    "a growth of NaN": (lambda: gamma_for_growth(4, float("nan")), "growth above 1"),
    "outputs of NaN": (lambda: optimal_ratio("relu", float("nan")), "outputs must be"),
    "a constant": (lambda: edge_of_chaos(lambda z: 0 * z), "slope zero"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence(case, unchecked):
    make, sentence = CASES[case]
    with pytest.raises(InputError, match=sentence) as raised:
        make()
    assert "\n" not in str(raised.value).strip()


def test_nothing_in_nothing_out():
    none = torch.zeros(0)
    assert Activation("tanh").chi(none).perpendicular.shape == (0,)
    assert Activation("tanh").hermite(none, 3).shape == (0, 3)
    assert Activation("relu").mean(none).shape == (0,)
    assert empirical_ntk(_net(), X[:0]).shape == (0, 0)
    assert kernel_flow("tanh", 5, none, weight_variance=1.0).kernel.shape == (5, 0)
    assert wide_kernel(_wide(), torch.zeros(0, 3)).shape == (0, 0)


def test_torchs_selu_is_taken_for_ours():
    assert AlphaDropout(0.5, nn.SELU()).a == AlphaDropout(0.5).a


WORDS = [nn.ReLU, "ReLU", "RELU", nn.ReLU(), nn.SiLU, "SiLU", "SILU", nn.SiLU()]


@pytest.mark.parametrize("given", some(WORDS, keep=4))
def test_a_class_or_its_name_stands_for_the_activation(given):
    weight = 2.0 if "relu" in str(given).lower() else 1.9880046783
    assert criticality(given).weight_variance == pytest.approx(weight, rel=1e-9)


def test_names_of_classes_with_several_words():
    assert criticality("LeakyReLU").weight_variance == pytest.approx(2 / (1 + 0.01**2))
    assert criticality(nn.Tanh).kind == "zero"
