"""Outputs of many types, every part of which is compared."""

import dataclasses
from collections import deque

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.laws import BatchIndependence, Invariance, SetPermutation, check

PERMUTE = Invariance(SetPermutation())
X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


@dataclasses.dataclass
class Pooled:
    mean: object
    label: object = None


WRAPS = {
    "float": lambda v: float(v[0, 0]),
    "integer": lambda v: int(10 * v[0, 0]),
    "boolean": lambda v: bool(v[0, 0] > 0),
    "complex number": lambda v: complex(v[0, 0], 1),
    "numpy scalar": lambda v: np.float32(v[0, 0]),
    "array": lambda v: v.numpy(),
    "big-endian array": lambda v: v.numpy().astype(">f8"),
    "array of objects": lambda v: np.array([float(v[0, 0]), None], dtype=object),
    "string": lambda v: "positive" if v[0, 0] > 0 else "negative",
    "array of strings": lambda v: np.array(["positive" if v[0, 0] > 0 else "negative"]),
    "set": lambda v: {int(v.argmax())},
    "deque": lambda v: deque([v]),
    "dataclass": lambda v: Pooled(v),
    "label of a dataclass": lambda v: Pooled(1.0, "p" if v[0, 0] > 0 else "n"),
    "dict within a list": lambda v: [{"a": (v,)}],
    "sparse": lambda v: v.to_sparse(),
    "huge integer": lambda v: int(float(v[0, 0]) * 1e30),
    "small beside large": lambda v: torch.stack([v * 1e-6, 1e6 * torch.ones_like(v)]),
    "None or not": lambda v: None if v[0, 0] > 0 else 1.0,
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
def test_no_part_of_an_output_escapes(wrap):
    assert check(PERMUTE, lambda x: (x.sum(1), wrap(x[:, 0])), X).status == "broken"
    assert check(PERMUTE, lambda x: {"a": x.sum(1), "b": wrap(x.amax(1))}, X).passed


@pytest.mark.parametrize("part", [object(), iter([1]), torch.nn.Identity(), np.ma.masked_array([1.0]), {1, "a"}])
def test_what_can_not_be_compared_is_refused_by_name(part):
    with pytest.raises(InputError, match=rf"output\[1\] is a .*{type(part).__name__}"):
        check(PERMUTE, lambda x: (x.sum(1), part), X)


def test_the_order_of_keys_does_not_matter():
    def f(x):
        a, b = x.sum(1), x.amax(1)
        return {"a": a, "b": b} if x[0, 0, 0] > 0 else {"b": b, "a": a}

    assert check(PERMUTE, f, X).passed


def test_model_outputs_and_their_caches():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=16)
    model = transformers.GPT2Model(config).eval()
    ids = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(0))
    assert check(BatchIndependence(), model, {"input_ids": ids}).passed


def test_pyg_data_of_mixed_parts():
    data = pytest.importorskip("torch_geometric.data")

    def f(x):
        return data.Data(x=x.sum(1), level=float(x[0, 0, 0]), note="same")

    assert check(PERMUTE, f, X).status == "broken"
    assert check(PERMUTE, lambda x: data.Data(x=x.sum(1), level=float(x.amax()), note="same"), X).passed
    hetero = data.HeteroData()

    def g(x):
        out = hetero.clone()
        out["a"].x, out["b"].x = x.sum(1), x[:, 0]
        return out

    assert check(PERMUTE, g, X).status == "broken"
    with pytest.raises(InputError, match="HeteroData"):
        check(PERMUTE, lambda d: d["a"].x, g(X))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_a_small_slice_along_any_axis_does_not_hide_a_leak(axis, dtype):
    image = torch.randn(3, 4, 5, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))

    def f(x):
        big = x.clone()
        big.select(axis, 1).mul_(1e-7).add_(1e-8 * x.mean(0).select(max(axis - 1, 0), 0))
        return big

    assert check(BatchIndependence(), f, image).status == "broken"


def test_one_small_number_does_not_hide_a_leak():
    def f(x):
        out = x.clone()
        out[:, 1, 2] = 1e-6 * x.mean(0)[1, 2]
        return out

    assert check(BatchIndependence(), f, X).status == "broken"


@pytest.mark.parametrize("size", [1e160, 1e307, 1e-200])
def test_values_whose_squares_overflow(size):
    double = X.double()
    assert check(PERMUTE, lambda x: size * x[:, 0], double).status == "broken"
    assert check(PERMUTE, lambda x: size / 10 * x.sum(1), double).passed


def test_integers_that_float64_can_not_tell_apart():
    assert check(PERMUTE, lambda x: (x[:, 0] > 0).long() + 2**60 * (x.amax(1) > 1).long(), X).status == "broken"


def test_an_imaginary_part_does_not_hide_behind_a_real_one():
    assert check(PERMUTE, lambda x: torch.complex(x.sum(1), 1e-6 * x[:, 0]), X).status == "broken"
    assert check(PERMUTE, lambda x: torch.complex(x.sum(1), 1e-6 * x.sum(1)), X).passed
