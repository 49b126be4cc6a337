"""Tests of the checker: it finds small, rare and hidden breaks, and nothing passes for the wrong reason."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import (
    Associativity,
    BatchIndependence,
    Commutativity,
    Equivariance,
    FunctionPreservation,
    GradientEquivariance,
    GraphPermutation,
    Homomorphism,
    IdentityElement,
    Invariance,
    Rotation,
    SetPermutation,
    Sets,
    TimeShift,
    assert_law,
    check,
    parse_input,
)

SETS = parse_input("4x6x3")
DOUBLES = parse_input("4x6x3", torch.float64)
PERMUTE = Invariance(SetPermutation())


def rms(x):
    return x.square().mean(1).sqrt()


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sum(1)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        weight = torch.ones_like(x)
        weight[:, 0] = 1.01
        return gradient[:, None] * weight


EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
PAIRS = (torch.randn(5, 4), torch.randn(5, 4))
TRIPLES = (*PAIRS, torch.randn(5, 4))

# law, function that obeys it, function that breaks it by about 5e-4, inputs
LAWS = {
    "invariance": (PERMUTE, rms, lambda x: rms(x) + 5e-4 * x[:, 0], SETS),
    "equivariance": (
        Equivariance(SetPermutation()),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x - x.mean(1, keepdim=True) + 5e-4 * x[:, :1],
        SETS,
    ),
    "rotation": (Equivariance(Rotation()), lambda x: 2 * x, lambda x: 2 * x + 1e-3 * x.abs(), SETS),
    "shift": (
        Equivariance(TimeShift()),
        lambda x: x.roll(1, 1) * x,
        lambda x: x.roll(1, 1) * x + 1e-3 * torch.arange(6)[:, None] * x,
        SETS,
    ),
    "graph": (
        Equivariance(GraphPermutation()),
        lambda x, e: x.index_add(0, e[1], x[e[0]]),
        lambda x, e: x.index_add(0, e[1], x[e[0]]) + 1e-3 * x[e[0, 0]],
        (torch.randn(4, 3), EDGES),
    ),
    "commutativity": (Commutativity(), torch.add, lambda a, b: a + b + 5e-4 * a, PAIRS),
    "associativity": (Associativity(), torch.maximum, lambda a, b: torch.maximum(a, b) + 5e-4 * a * b, TRIPLES),
    "identity": (IdentityElement(torch.zeros_like), torch.add, lambda a, b: a + b + 5e-4 * a, PAIRS[:1]),
    "homomorphism": (
        Homomorphism(torch.add, torch.mul),
        lambda x: (0.3 * x).exp(),
        lambda x: (0.3 * x).exp() + 1e-3 * x,
        PAIRS,
    ),
    "batch": (BatchIndependence(), rms, lambda x: rms(x) + 1e-3 * x.amax((0, 1)), SETS),
    "gradient": (
        GradientEquivariance(SetPermutation()),
        lambda x: x.sum(1) ** 2,
        lambda x: WrongBackward.apply(x) ** 2,
        SETS,
    ),
    "preservation": (
        FunctionPreservation(lambda f: lambda x: f(-x)),
        lambda x: x.abs().sum(1),
        lambda x: x.abs().sum(1) + 5e-4 * x.sum(1),
        SETS,
    ),
}


@pytest.mark.parametrize(("law", "lawful", "unlawful", "inputs"), LAWS.values(), ids=LAWS.keys())
class TestEveryLaw:
    def test_holds(self, law, lawful, unlawful, inputs):
        report = check(law, lawful, inputs)
        assert report.passed, str(report)
        assert report.witness is None

    def test_slight_break_is_found(self, law, lawful, unlawful, inputs):
        report = check(law, unlawful, inputs)
        assert report.status == "broken"
        assert report.witness is not None
        assert "torch.tensor" in report.witness.code

    def test_nan_fails(self, law, lawful, unlawful, inputs):
        def poisoned(*args):
            out = lawful(*args).clone()
            out.flatten()[-1] = float("nan")
            return out

        if isinstance(law, GradientEquivariance):
            report = check(law, lambda x: lawful(x) * (x.sum() * 0 + float("nan")), inputs)
        else:
            report = check(law, poisoned, inputs)
        assert report.status == "broken"
        assert "NaN" in report.sentence

    def test_zero_map_does_not_pass(self, law, lawful, unlawful, inputs):
        assert not check(law, lambda *args: lawful(*args) * 0, inputs).passed

    def test_constant_does_not_pass(self, law, lawful, unlawful, inputs):
        assert not check(law, lambda *args: lawful(*args) * 0 + 3.0, inputs).passed

    def test_breaks_in_one_dtype_only(self, law, lawful, unlawful, inputs):
        def only_double(*args):
            return (unlawful if args[0].dtype == torch.float64 else lawful)(*args)

        def doubled(tree):
            return tuple(t.double() if t.is_floating_point() else t for t in tree)

        wide = DOUBLES if callable(inputs) else doubled(inputs)
        assert check(law, only_double, inputs).passed
        assert check(law, only_double, wide).status == "broken"


def test_float64_finds_a_break_of_a_billionth():
    assert check(PERMUTE, lambda x: rms(x) + 1e-9 * x[:, 0], DOUBLES).status == "broken"
    assert check(PERMUTE, rms, DOUBLES).passed


def test_large_sets_only_and_the_witness_shrinks_to_the_smallest_that_breaks():
    def f(x):
        return x.sum(1) + (x[:, 0] if x.shape[1] > 9 else 0)

    assert check(PERMUTE, f, SETS).passed
    report = check(PERMUTE, f, parse_input("2x3..40x2"))
    assert report.status == "broken"
    assert report.witness.x.shape[1] == 10
    assert report.witness.x.shape[0] == 1
    assert int((report.witness.g != torch.arange(10)).sum()) == 2


def test_vacuous_says_why():
    assert "does not depend on the input" in check(PERMUTE, lambda x: torch.ones(4, 2), SETS).sentence
    report = check(PERMUTE, rms, torch.randn(4, 1, 3))
    assert report.status == "vacuous"
    assert "no drawn group element" in report.sentence
    assert check(BatchIndependence(), rms, torch.randn(1, 6, 3)).status == "vacuous"


def test_a_large_offset_does_not_hide_a_break():
    assert check(PERMUTE, lambda x: x.sum(1) + 1e7, SETS).status == "unresolved"
    assert check(PERMUTE, lambda x: 100 * x[:, 0] + 1e5, SETS).status == "broken"


def test_shape_mismatch_is_reported():
    report = check(BatchIndependence(), lambda x: x[:2].sum(1), torch.randn(2, 3))
    assert report.status in ("broken", "vacuous", "holds")
    with pytest.raises(InputError, match="one row for each"):
        check(BatchIndependence(), lambda x: x.sum(), SETS)


def test_random_stages_are_frozen_and_buffers_restored():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    before = net[1].running_mean.clone()
    report = check(FunctionPreservation(lambda f: f), net, torch.randn(16, 3))
    assert report.passed
    assert torch.equal(net[1].running_mean, before)
    assert ".eval()" in check(BatchIndependence(), net, torch.randn(16, 3)).sentence


def test_gradient_law_finds_what_the_forward_hides():
    assert check(PERMUTE, WrongBackward.apply, SETS).passed
    assert check(GradientEquivariance(SetPermutation()), lambda x: WrongBackward.apply(x) ** 2, SETS).status == "broken"


def test_half_precision_and_complex_outputs():
    half = nn.Linear(4, 4).bfloat16()
    assert check(BatchIndependence(), half, torch.randn(32, 4).bfloat16()).passed
    assert check(BatchIndependence(), lambda x: half(x) + x.amax(), torch.randn(32, 4).bfloat16()).status == "broken"
    assert check(Equivariance(Rotation()), lambda x: torch.fft.fft(x, dim=1), SETS).passed
    assert check(Equivariance(Rotation()), lambda x: torch.fft.fft(x, dim=1).abs(), SETS).status == "broken"


def test_pyg_batches():
    data = pytest.importorskip("torch_geometric.data")
    pool = pytest.importorskip("torch_geometric.nn").global_mean_pool
    edges = torch.tensor([[0, 1], [1, 2]])
    batch = data.Batch.from_data_list([data.Data(x=torch.randn(n, 4), edge_index=edges) for n in (3, 5, 4)])

    def mean(d):
        return pool(d.x, d.batch, size=d.num_graphs)

    assert check(BatchIndependence(), mean, batch).passed
    report = check(BatchIndependence(), lambda d: mean(d) + 1e-2 * d.x.max(), batch)
    assert report.status == "broken"
    assert report.witness.x.num_graphs == 2


def test_works_under_no_grad():
    with torch.no_grad():
        assert check(GradientEquivariance(SetPermutation()), lambda x: x.sum(1) ** 2, SETS).passed


def test_first_submodule_that_breaks_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 8)
            self.mix = nn.Linear(6, 6)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            h = self.embed(x).relu()
            return self.head(self.mix(h.mT).mT.sum(1))

    report = check(PERMUTE, Net(), SETS)
    assert report.culprit == "mix"
    assert [layer.name for layer in report.layers] == ["embed", "mix"]
    assert "'mix'" in report.sentence


def test_dict_inputs_are_keyword_arguments():
    def f(points, weights):
        return (points * weights[..., None]).sum(1)

    inputs = {"points": torch.randn(4, 6, 3), "weights": torch.rand(4, 6)}
    assert check(PERMUTE, f, inputs).passed
    assert check(Invariance(SetPermutation().on("points")), f, inputs).status == "broken"


def test_integer_inputs_are_shuffled_not_perturbed():
    table = nn.Embedding(10, 4)
    ids = parse_input("ids:10:4x6")
    assert check(PERMUTE, lambda i: table(i).sum(1), ids).passed
    assert check(PERMUTE, lambda i: table(i)[:, 0], ids).status == "broken"


def test_rotation_witness_says_the_angle():
    report = check(Invariance(Rotation()), lambda x: x[..., 0].sum(1), parse_input("1x1x3"))
    assert "rotation by" in report.witness.code


def test_witness_code_rebuilds_the_witness():
    report = check(PERMUTE, lambda x: x[:, 0], SETS)
    scope = {"torch": torch}
    exec(report.witness.code, scope)
    assert torch.equal(scope["x"], report.witness.x)
    assert torch.equal(scope["g"], report.witness.g)


def test_ragged_witness_of_batch_dependence_is_two_sets():
    def padded_mean(x, index):
        count = torch.bincount(index).max()
        out = torch.zeros(int(index.max()) + 1, x.shape[1]).index_add(0, index, x)
        return out / count

    report = check(BatchIndependence(), padded_mean, parse_input("sets:6x1..9x2"))
    assert report.status == "broken"
    assert isinstance(report.witness.x, Sets)
    assert int(report.witness.x.index.max()) + 1 == 2
    assert report.witness.x.x.shape[0] <= 4


def test_assert_law_raises_with_the_witness():
    with pytest.raises(AssertionError, match="smallest witness"):
        assert_law(PERMUTE, lambda x: x[:, 0], SETS)


@pytest.mark.parametrize("spec", ["", "8xx3", "8x", "sets:4", "cubes:3x3", "5..2x3", "-1x3", "sets:3x4"])
def test_bad_input_specs_are_named(spec):
    with pytest.raises(InputError, match="not understood"):
        parse_input(spec)


def test_bad_arguments():
    with pytest.raises(InputError, match="trials"):
        check(PERMUTE, rms, SETS, trials=0)
    with pytest.raises(InputError, match="at least one tensor"):
        check(PERMUTE, rms, "hello")
