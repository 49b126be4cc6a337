"""Wrong calls of the aggregations raise an error of one sentence at once."""

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.algebra import DiagonalAffine, Max, Product, ScalarKalman, Sum
from commutant.sets import (
    BinaryGRU,
    Conjugated,
    CouplingFlow,
    GRUFoldAggregation,
    LCMAggregation,
    MonoidAggregation,
    associativity_defect,
    aux_loss,
)

X, INDEX = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
AGGREGATIONS = {
    "lcm": lambda: LCMAggregation(4, 8),
    "fold": lambda: GRUFoldAggregation(4, 8),
    "max": lambda: MonoidAggregation(Max()),
    "conjugated": lambda: MonoidAggregation(Conjugated.of_sum(4)),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", AGGREGATIONS.values(), ids=AGGREGATIONS.keys())
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(X.numpy(), INDEX), "x must be a tensor, got ndarray; convert it"),
        (lambda f: f(X.tolist(), INDEX), "x must be a tensor, got list"),
        (lambda f: f(None, INDEX), "x must be a tensor, got NoneType"),
        (lambda f: f(X.long(), INDEX), "x must be floating point, got torch.int64; convert it"),
        (lambda f: f(X > 0, INDEX), "got torch.bool"),
        (lambda f: f(X.to(torch.complex64), INDEX), "got torch.complex64"),
        (lambda f: f(X[:, 0], INDEX), r"an element axis \(dim=-2\) and a channel axis, got shape \(6,\)"),
        (lambda f: f(X, INDEX, dim=5), "an element axis"),
        (lambda f: f(X, INDEX, dim="0"), "an element axis"),
        (lambda f: f(X, INDEX, dim=-1), "the channel axis"),
        (lambda f: f(X, INDEX.tolist()), "index must be a 1-d integer tensor, got list"),
        (lambda f: f(X, INDEX.numpy()), "got ndarray"),
        (lambda f: f(X, INDEX, torch.tensor([0, 1, 4, 6])), "index and ptr describe different sets"),
        (lambda f: f(X, ptr=[0, 6]), "ptr must be a 1-d integer tensor, got list"),
        (lambda f: f(X, torch.tensor(0)), r"of shape \(\)"),
        (lambda f: f(X, INDEX - 1), "index must not be negative, got values from -1 to 1"),
        (lambda f: f(X[:1], INDEX[:1] - 1), "index must not be negative, got values from -1 to -1"),
        (lambda f: f(X, INDEX, dim_size=-1), "at least 0, got -1"),
        (lambda f: f(X, INDEX, dim_size=3.0), "at least 0, got 3.0"),
        (lambda f: f(X, INDEX, dim_size=2), "lie in 0..1 for 2 sets, got values from 0 to 2"),
        (lambda f: f(X, INDEX.to("meta")), "index is on meta and x is on cpu"),
    ],
)
def test_wrong_inputs_of_an_aggregation(make, call, message):
    with pytest.raises(InputError, match=message):
        call(make())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", [v for k, v in AGGREGATIONS.items() if k != "max"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_features_of_another_dtype_than_the_weights(make, dtype):
    with pytest.raises(InputError, match=f"x is {dtype} and the weights are torch.float32; convert one"):
        make()(X.to(dtype), INDEX)
    assert make().to(dtype)(X.to(dtype), INDEX).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        make()(X.bfloat16(), INDEX)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_monoid_without_weights_takes_every_precision(dtype):
    assert MonoidAggregation(Sum())(X.to(dtype), INDEX).dtype == dtype


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", [LCMAggregation, GRUFoldAggregation])
@pytest.mark.parametrize("width", [0, -1, 4.0, "4", None, True, np.float64(4)])
def test_widths_that_are_none(make, width):
    with pytest.raises(InputError, match="in_channels must be a whole number of at least 1"):
        make(width, 8)
    with pytest.raises(InputError, match="out_channels must be a whole number of at least 1"):
        make(8, width)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MonoidAggregation("sum"), "monoid must be a Monoid such as .*, got 'sum'"),
        (lambda: MonoidAggregation(Sum), "got the class Sum; instantiate it"),
        (lambda: MonoidAggregation(torch.nn.Linear(2, 2)), "got Linear"),
        (lambda: MonoidAggregation(torch.add), "monoid must be a Monoid"),
        (lambda: MonoidAggregation(Sum(), generator=3), "generator must be a torch.Generator"),
        (lambda: MonoidAggregation(Sum(), associativity_weight="1"), "must be finite"),
        (lambda: MonoidAggregation(Sum(), associativity_weight=float("inf")), "must be finite"),
        (lambda: MonoidAggregation(Sum(), associativity_weight=float("nan")), "must be finite"),
        (lambda: BinaryGRU(2.5), "a whole number of at least 1, got 2.5"),
        (lambda: BinaryGRU(True), "a whole number of at least 1, got True"),
        (lambda: BinaryGRU(4)(X.numpy(), X), "a must be a tensor"),
        (lambda: BinaryGRU(4)(X, X.double()), "b is torch.float64 and the weights are torch.float32"),
        (lambda: BinaryGRU(4).reduce(X.double()), "torch.float64 and the weights are torch.float32"),
        (lambda: BinaryGRU(4).scan(X.long()), "real floating point, got torch.int64"),
        (lambda: CouplingFlow(4)(X[:, :3]), "x must have 4 channels"),
        (lambda: CouplingFlow(4).inverse(X[:, :3]), "y must have 4 channels"),
        (lambda: CouplingFlow(4)(X.double()), "x is torch.float64"),
        (lambda: CouplingFlow(4, layers=0), "layers must be a whole number of at least 1"),
        (lambda: CouplingFlow(4, hidden_channels=-1), "hidden_channels must be a whole number of at least 1"),
        (lambda: Conjugated.of_sum(4).reduce(X[:, :3]), "must have 4 channels"),
        (lambda: Conjugated.of_sum(4).reduce(X[:4], dim=1), "the channel axis"),
        (lambda: Conjugated.of_sum(4).reduce(X[:4], dim=-1, mask=X[:4] > 0), "the channel axis"),
        (lambda: Conjugated.of_sum(4).scan(X[:4], dim=1), "the channel axis"),
        (lambda: Conjugated.of_sum(4).reduce((X, X)), "tensors of channels, got tuple"),
        (lambda: associativity_defect(Max, X, X, X), "op must be a Monoid"),
        (lambda: associativity_defect(Product(Sum(), Max()), (X, X), (X, X), (X, X)), "got one on tuples"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_defect_of_zeros_and_of_infinities_is_zero():
    zero = torch.zeros(5, 4)
    assert not associativity_defect(Sum(), zero, zero, zero).any()
    assert not associativity_defect(Max(), *[zero - torch.inf] * 3).any()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MonoidAggregation(DiagonalAffine())(X, INDEX), "DiagonalAffine is a tuple of 2 tensors, got Tensor"),
        (lambda: MonoidAggregation(ScalarKalman())(X, INDEX), "ScalarKalman is a tuple of 5 tensors, got Tensor"),
        (lambda: BinaryGRU(4)(X, X[:3]), r"must broadcast, got shapes \(6, 4\) and \(3, 4\)"),
        (lambda: aux_loss(3), "must be a torch.nn.Module, got int"),
        (lambda: aux_loss(LCMAggregation), "got the class LCMAggregation"),
    ],
)
def test_operators_and_models_that_do_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call()
