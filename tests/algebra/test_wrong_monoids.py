"""Messages for wrong elements, axes, sets and permutations."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import (
    Activation,
    DiagonalAffine,
    MatrixAffine,
    Product,
    ScalarKalman,
    Sum,
    compose,
    inverse,
    is_permutation,
    linear_scan,
    parity,
    permutation_matrix,
    power,
    reduction_plan,
)

X, P = torch.randn(6, 4), torch.tensor([1, 0, 2])
CASES = {
    "one tensor of an affine map": (lambda: DiagonalAffine().scan(X), "a tuple of 2 tensors, got Tensor"),
    "three tensors of an affine map": (lambda: DiagonalAffine().scan((X, X, X)), "2 tensors, got 3 parts"),
    "an affine map in a product": (lambda: Product(Sum(), DiagonalAffine()).reduce((X, X)), "2 tensors, got Tensor"),
    "a filter of one tensor": (lambda: ScalarKalman().scan(X), "a tuple of 5 tensors, got Tensor"),
    "vectors for matrices": (lambda: MatrixAffine().scan((X, X)), "square matrices"),
    "matrices of another width": (lambda: MatrixAffine().scan((X[:, :, None], X)), "square matrices"),
    "an axis that is a tensor": (lambda: DiagonalAffine().scan((X, X), X), "dim=Tensor is not an axis"),
    "no sets": (lambda: Sum().segment_reduce(X), "got neither"),
    "sets twice": (lambda: reduction_plan(num_elements=1, index=P[1:2], ptr=P), "got both"),
    "a shift that is a number": (lambda: linear_scan(X, 2), "b must be a tensor, got int"),
    "decays as a list": (lambda: linear_scan([0.5], X), "A must be a tensor, got list"),
    "a class of an activation": (lambda: Activation(nn.ReLU), "the class ReLU; instantiate it"),
    "a permutation as a list": (lambda: inverse([1, 0]), "got list"),
    "a matrix of a list": (lambda: permutation_matrix([0, 1]), "got list"),
    "a matrix of no permutation": (lambda: permutation_matrix(P + 1), "must lie in 0..2"),
    "floats": (lambda: compose(P.float(), P), "got torch.float32"),
    "a power of booleans": (lambda: power(P > 0, 2), "got torch.bool"),
    "a parity of text": (lambda: parity("10"), "got str"),
    "a number": (lambda: is_permutation(3), "got int"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", CASES)
def test_one_sentence(case):
    call, said = CASES[case]
    with pytest.raises(InputError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)
