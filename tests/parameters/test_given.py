"""Arguments of a wrong type: every function refuses them in one sentence."""

import numpy as np
import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import (
    Checkpoint,
    GeneratedLinear,
    Permutation,
    PermutationSpec,
    WeightPermutation,
    act_linearly,
    difference,
)

X = torch.randn(3, 4)


def model():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def spec():
    return PermutationSpec.from_module(model(), X, verify=False)


def derive(*args, **options):
    return lambda: PermutationSpec.from_module(*args, **options)


def axes(labels, state=None):
    return lambda: PermutationSpec.from_axes(labels, model().state_dict() if state is None else state)


CASES = [
    (derive("gpt2", X), r"model must be a torch.nn.Module, got 'gpt2'; load the model first"),
    (derive(nn.Linear, X), "model must be a torch.nn.Module, got the class Linear; create an instance of it"),
    (derive(model().state_dict(), X), "model must be a torch.nn.Module, got a OrderedDict"),
    (derive(None, X), "model must be a torch.nn.Module, got a NoneType"),
    (derive(X, model()), "model must be a torch.nn.Module, got a Tensor"),
    (derive(model(), None), "example_inputs must be a tensor, a tuple of arguments or a mapping of keywords"),
    (derive(model(), "a sentence"), "example_inputs must be a tensor, .*, got 'a sentence'"),
    (derive(model(), X.numpy()), "example_inputs must hold tensors, got a NumPy array; convert it with"),
    (derive(model(), {"input": X.numpy()}), "example_inputs must hold tensors, got a NumPy array"),
    (derive(model(), ()), "example_inputs must be a tensor"),
    (derive(model(), torch.randn(3, 5)), "Sequential could not be traced on the example inputs"),
    (derive(model(), X, also=X), r"also must be a list of examples, got a Tensor; write also=\[example\]"),
    (derive(model(), X, also={"input": X}), "also must be a list of examples, got a dict"),
    (derive(model(), X, also=[None]), "each example of also must be a tensor"),
    (derive(model(), X, outputs="logits"), "outputs must be a function of the model's output, got 'logits'"),
    (axes(["0.weight"]), "axes must be a mapping from names to tensors, got a list"),
    (axes({}, model()), r"state must be a mapping from names to tensors, got a Sequential; pass its state_dict\(\)"),
    (axes({}, {"w": [1, 2]}), "'w' must be a tensor, got a list"),
    (axes({"0.weight": "ab"}), "'0.weight' must have a list of a group's name or None for each axis, got 'ab'"),
    (axes({"0.bias": (3,)}), "'0.bias' must have a list of a group's name or None for each axis"),
    (lambda: spec().without(["3"]), "the spec has no group '3'; its groups are 0"),
    (lambda: spec().check(model()), "the parameters must be a mapping .* got a Sequential; pass its state_dict"),
    (lambda: spec().check({k: v.numpy() for k, v in model().state_dict().items()}), "must be a tensor, got a ndarray"),
    (lambda: spec().activations({}, X), "the parameters lack '0.bias'"),
    (lambda: spec().activations(model().state_dict(), None), "the example must be a tensor"),
    (lambda: PermutationSpec.from_axes({}, model().state_dict()).computed({}), "outputs need a spec derived by"),
    (lambda: Permutation(model()), "spec must be a PermutationSpec, got a Sequential"),
    (lambda: Permutation(spec(), [torch.arange(6)]), "tables must be a mapping from names to tensors, got a list"),
    (lambda: Permutation(spec(), {"0": list(range(6))}), "'0' must be a tensor, got a list"),
    (lambda: Permutation(spec(), {"0": torch.ones(6, dtype=torch.bool)}), r"must be integers .* got\s+torch.bool"),
    (lambda: Permutation(spec()).apply("weights"), "the parameters must be a mapping"),
    (lambda: Permutation(spec()).compose("p"), "composed with a Permutation, got 'p'"),
    (lambda: WeightPermutation(model()), "spec must be a PermutationSpec, got a Sequential"),
    (lambda: Checkpoint(None), "path must be a file or a folder, got a NoneType"),
    (lambda: Checkpoint("nowhere.safetensors"), "there is no file nowhere.safetensors"),
    (lambda: act_linearly(spec(), model().state_dict(), "x", {}), "the spec has no group 'x'"),
    (lambda: act_linearly(spec(), model().state_dict(), "0", {("0.weight", 1, 0): torch.eye(6)[None]}),
     r"the part \('0.weight', 1, 0\) does not carry group '0'"),
    (lambda: act_linearly(spec(), model().state_dict(), "0", {("0.weight", 0, 0): torch.eye(5)[None]}),
     r"must have shape \(1, 6, 6\) or \(1, 6\), got \(1, 5, 5\)"),
    (lambda: difference([torch.ones(3)], [torch.ones(1)]), r"of the same shapes can be compared, got \[\(3,\)\] and"),
    (lambda: difference([torch.ones(3)], []), "tensors of the same shapes can be compared"),
    (lambda: GeneratedLinear(4.0, 3, 2), "in_features must be a whole number of at least 1, got 4.0"),
    (lambda: GeneratedLinear(4, 3, 2, hidden=5), "hidden must be a list of whole numbers of at least 1, got 5"),
    (lambda: GeneratedLinear(4, 3, 2)(np.ones((5, 4)), torch.randn(5, 2)), "z must be a tensor, got a ndarray"),
    (lambda: GeneratedLinear(4, 3, 2)(torch.randn(5, 4).double(), torch.randn(5, 2)), "z must be torch.float32"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES, ids=[m[:40] for _, m in CASES])
def test_a_wrong_kind_is_named(unchecked, call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [0, 1])
def test_small_batches_are_derived(rows):
    if rows:
        assert PermutationSpec.from_module(model(), X[:1]).sizes == {"0": 6}
        return
    with pytest.warns(UserWarning, match="nothing was verified"):
        found = PermutationSpec.from_module(model(), X[:0])
    assert found.error is None


def test_an_example_of_another_type_is_not_verified():
    with pytest.warns(
        UserWarning, match="nothing was verified: RuntimeError: mat1 and mat2 must have the same"
    ) as seen:
        assert PermutationSpec.from_module(model(), X.long()).error is None
    assert all("\n" not in str(w.message) for w in seen)
