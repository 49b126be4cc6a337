"""Activation matching: planted permutations, scores, and refused arguments."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import activation_matching

sys.path.insert(0, str(Path(__file__).parent.parent / "parameters"))
import networks

from depth import some

NAMES = ["mlp", "cnn_flattened", "resnet", "gpt_tied", "torch_encoder_layer", "concatenated", "squeeze_excite",
         "rms_norm_and_swiglu", "unet", "split_apart", "graph_network", "grouped_query_attention"]  # fmt: skip


def build(name):
    torch.manual_seed(0)
    return networks.CASES[name].build()


def computes_like(spec, model, planted, found, inputs):
    moved = found.apply(planted.apply(model)).eval()
    torch.testing.assert_close(moved(*inputs), model.eval()(*inputs), rtol=1e-4, atol=1e-4)


PLANTED = [("mlp", "correlation"), *itertools.product(NAMES, ["second_moment"]),
           *itertools.product(NAMES[1:], ["correlation"])]  # fmt: skip


@pytest.mark.parametrize(("name", "score"), some(PLANTED, keep=13))
def test_a_planted_permutation_is_found(name, score):
    model, inputs = build(name)
    if name == "gpt_tied":
        inputs = (torch.randint(11, (8, 9)),)
    elif name != "graph_network":
        inputs = tuple(torch.randn(64, *i.shape[1:]) for i in inputs)
    model.eval()
    spec = PermutationSpec.from_module(model, inputs, verify=False)
    planted = Permutation.random(spec, torch.Generator().manual_seed(1))
    found = activation_matching(spec, model, planted.apply(model), [inputs], score=score)
    computes_like(spec, model, planted, found, inputs)
    undone = planted.compose(found)
    identity = Permutation(spec)
    # a unit that is dead on the data may go anywhere
    alike = [float((undone.tables[g] == identity.tables[g]).float().mean()) for g in spec.sizes]
    assert min(alike) > 0.6
    assert sum(alike) / len(alike) > 0.9


def test_scores_are_the_moments_of_what_layers_read():
    a, b = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(2))
    x = torch.randn(40, 3)
    spec = PermutationSpec.from_module(a, x[:20])
    hidden = [m[1](m[0](x)).detach().double() for m in (a, b)]
    best = {}
    for score in ("second_moment", "correlation"):
        table = activation_matching(spec, a, b, [x[:20], x[20:]], score=score).tables["0"]
        if score == "correlation":
            z = [(h - h.mean(0)) / h.std(0, correction=0).clamp(min=1e-9) for h in hidden]
        else:
            z = hidden
        moment = z[0].T @ z[1]
        every = torch.cartesian_prod(*[torch.arange(5)] * 5)
        every = every[(every.sort(1).values == torch.arange(5)).all(1)]
        totals = moment[torch.arange(5), every].sum(1)
        best[score] = float(totals.max())
        assert float(moment[torch.arange(5), table].sum()) == pytest.approx(best[score], rel=1e-5)


def test_a_network_is_matched_with_itself_by_the_identity():
    model, inputs = build("gpt_tied")
    spec = PermutationSpec.from_module(model, inputs)
    assert activation_matching(spec, model, model, [inputs]) == Permutation(spec)


def test_what_is_refused(unchecked):
    model, inputs = build("mlp")
    spec = PermutationSpec.from_module(model, inputs)
    with pytest.raises(InputError, match=r"must have the shapes of the example, \(3, 4\), got \(5, 4\)"):
        activation_matching(spec, model, model, [torch.randn(5, 4)])
    with pytest.raises(InputError, match="no batch was given"):
        activation_matching(spec, model, model, [])
    with pytest.raises(InputError, match="hold NaN or infinities"):
        activation_matching(spec, model, model, [torch.full((3, 4), torch.nan)])
    with pytest.raises(InputError, match="score must be one of second_moment, correlation"):
        activation_matching(spec, model, model, [inputs], score="cosine")
    by_hand = PermutationSpec.from_axes({"0.weight": ("h", None)}, model.state_dict())
    with pytest.raises(InputError, match="need a spec derived by PermutationSpec"):
        activation_matching(by_hand, model, model, [inputs])
