"""Linear layers whose weights are a function of a code."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import GeneratedLinear


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"hyper_bias": True}, {"hidden": (6, 5)}])
def test_the_contraction_is_the_product_with_the_matrix(rank, options):
    layer = GeneratedLinear(7, 5, 4, rank=rank, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    z, g = torch.randn(3, 9, 7).double(), torch.randn(3, 9, 4).double()
    expected = (layer.matrix(g) @ z[..., None])[..., 0]
    if layer.bias is not None:
        expected = expected + g @ layer.bias
    assert torch.allclose(layer(z, g), expected)
    if rank is not None:
        assert int(torch.linalg.matrix_rank(layer.matrix(torch.eye(4).double()[0]))) <= rank * layer.weight.shape[0]


def test_without_biases_it_is_linear_and_odd_in_the_code():
    layer = GeneratedLinear(6, 6, 3).double()
    z, g, h = torch.randn(5, 6).double(), torch.randn(5, 3).double(), torch.randn(5, 3).double()
    assert torch.allclose(layer(z, 2 * g - 3 * h), 2 * layer(z, g) - 3 * layer(z, h))
    assert torch.allclose(layer(z, -g), -layer(z, g))
    assert layer(z, 0 * g).abs().max().item() == 0
    biased = GeneratedLinear(6, 6, 3, hyper_bias=True).double()
    assert biased(z, 0 * g).abs().min().item() > 0


@pytest.mark.parametrize("rank", [None, 32])
def test_a_code_of_length_one_keeps_the_size(rank):
    layer = GeneratedLinear(256, 256, 4, rank=rank)
    z, g = torch.randn(500, 256), nn.functional.normalize(torch.randn(500, 4), dim=-1)
    ratio = layer(z, g).norm(dim=-1) / z.norm(dim=-1)
    assert 0.8 < ratio.mean().item() < 1.2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GeneratedLinear(0, 3, 2), "in_features must be"),
        (lambda: GeneratedLinear(4, 3, 2, rank=4), "rank must lie in"),
        (lambda: GeneratedLinear(4, 3, 2)(torch.randn(5, 4), torch.randn(4, 2)), "same batch"),
        (lambda: GeneratedLinear(4, 3, 2)(torch.randn(5, 3), torch.randn(5, 2)), "z must be"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()
