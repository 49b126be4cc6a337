"""Feature merging: exactness on equal channels, the path against a plain loop, bounds, budgets, refusals."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import FeatureMerger, feature_complexity, resize
from commutant.weights import _mergeable as mergeable
from commutant.weights._merge_path import merge_path

sys.path.insert(0, str(Path(__file__).parents[1] / "parameters"))
from networks import CASES

from depth import some


def merger(model, x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of networks without a group
        return FeatureMerger(model, x, **options)


def twin(found, group, first, second, *, read_alike=False):
    """Make the second channel of a group equal to the first; with `read_alike` also its outgoing weights."""
    state = found.model.state_dict()
    for site in found.sites[group]:
        if read_alike or not site.reads:
            value = state[site.key]
            value.index_copy_(site.axis, site.index[second], value.index_select(site.axis, site.index[first]))


def gap(x, y):
    return float((x - y).detach().abs().max() / y.detach().abs().max())


def normed(activation, *, bias=True):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8), activation, nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), activation,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    for norm in (model[1], model[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model.double().eval()


ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.LeakyReLU(0.2)]


@pytest.mark.parametrize("name", some(CASES, keep=12))
def test_equal_channels_merge_exactly_in_every_network(name):
    torch.manual_seed(0)
    model, inputs = CASES[name].build()
    model = model.double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    found = merger(model, inputs, criterion="saliency")
    for group, size in found.groups.items():
        twin(found, group, 0, size - 1)
    before = model(*inputs)
    small = found.shrink(beta=0.0)
    assert all(after == before - 1 for after, before in small.widths.values())
    assert all([0, size - 1] in small.clusters[g] for g, size in found.groups.items())
    torch.testing.assert_close(small.module(*inputs), before, rtol=1e-8, atol=1e-10)
    assert small.parameters == tuple(sum(p.numel() for p in m.parameters()) for m in (small.module, model))


NORMED = [(activation, bias) for bias in (True, False) for activation in ACTIVATIONS]


@pytest.mark.parametrize(("activation", "bias"), some(NORMED, keep=5))
def test_batch_norm_is_exact_under_every_activation(activation, bias):
    model, x = normed(activation, bias=bias), torch.randn(4, 3, 12, 12).double()
    found = merger(model, x, criterion="saliency")
    for group, size in found.groups.items():
        twin(found, group, 0, size - 1)
        twin(found, group, 0, 2)
        twin(found, group, 1, size - 2)
    before = model(x)
    small = found.shrink(beta=0.0)
    assert [w for w, _ in small.widths.values()] == [5, 3]
    assert gap(small.module(x), before) < 1e-12
    small.module.train(), model.train()  # the running statistics belong to the merged channels too
    assert gap(small.module(x), model(x)) < 5e-3  # eps weighs otherwise at another scale


def test_the_papers_rule_is_exact_for_homogeneous_activations_alone(monkeypatch):
    x = torch.randn(4, 3, 12, 12).double()
    for activation in ACTIVATIONS:
        model = normed(activation)
        found = merger(model, x, rule="ifm")
        homogeneous = isinstance(activation, nn.ReLU | nn.LeakyReLU)
        assert set(found.groups) == ({"0", "3"} if homogeneous else set())
        if homogeneous:
            twin(found, "0", 1, 7, read_alike=True)
            before = model(x)
            small = found.shrink(beta=0.0)
            assert small.widths["0"] == (7, 8)
            assert gap(small.module(x), before) < 1e-12
        else:
            assert "not homogeneous" in found.refused["0"]
    monkeypatch.setattr(mergeable.Mergeable, "_try", lambda self, groups: None)  # as the paper would
    model = normed(nn.Tanh())
    found = merger(model, x, rule="ifm")
    twin(found, "0", 1, 7, read_alike=True)
    before = model(x)
    assert gap(found.shrink(beta=0.0).module(x), before) > 0.005


def test_adding_variances_as_the_reference_does_is_not_exact():
    torch.manual_seed(0)
    model, x = normed(nn.ReLU()), torch.randn(4, 3, 12, 12).double()
    found = merger(model, x, rule="ifm")
    twin(found, "0", 1, 7, read_alike=True)
    before = model(x)
    small = found.shrink(beta=0.0)
    assert gap(small.module(x), before) < 1e-12
    small.module[1].running_var[1] *= 0.5  # a sum of two equal variances is half of what two deviations add up to
    assert gap(small.module(x), before) > 0.002


def plain_path(tensors, groups, rule, criterion, reference, steps=1000):
    """Compute the path with everything recomputed at every step."""
    tensors = {k: v.clone() for k, v in tensors.items()}
    alive = {g: list(range(len(sites[0].index))) for g, sites in groups.items()}
    counts = {g: dict.fromkeys(own, 1) for g, own in alive.items()}
    path, first = [], {}

    def distances(group):
        made, read, offsets = ([], [], [])
        for site in groups[group]:
            rows = site.rows(tensors[site.key])
            (read if site.reads else made if tensors[site.key].dim() > 1 else offsets).append(rows)
        found = {}
        for a, i in enumerate(alive[group]):
            for j in alive[group][a + 1 :]:
                d = [sum(float((r[i] - r[j]).square().sum()) for r in kind) for kind in (made, offsets, read)]
                n = [float(sum(r[k].square().sum() for r in read)) ** 0.5 for k in (i, j)]
                weight = n[0] * n[1] / (n[0] + n[1])
                found[i, j] = d[0] + d[2] if criterion == "inout" else weight**2 * (d[0] + d[1])
                found[i, j, "share"] = n[0] / (n[0] + n[1])
        return found

    while any(len(own) > 1 for own in alive.values()) and len(path) < steps:
        best = None
        for group in groups:
            if len(alive[group]) < 2:
                continue
            found = distances(group)
            pairs = {k: v for k, v in found.items() if len(k) == 2}
            first.setdefault(group, max(pairs.values()))
            against = first[group] if reference == "initial" else max(pairs.values())
            pair = min(pairs, key=pairs.get)
            if best is None or pairs[pair] / against < best[0]:
                best = (pairs[pair] / against, group, pair, found[*pair, "share"])
        level, group, (i, j), share = best
        if criterion == "inout":
            share = counts[group][i] / (counts[group][i] + counts[group][j])
        path.append((group, i, j, share, level))
        counts[group][i] += counts[group][j]
        for site in groups[group]:
            value = tensors[site.key].movedim(site.axis, 0)
            mean = site.reads != (rule == "fold")
            kept, gone = value[site.index[i]].clone(), value[site.index[j]].clone()
            value[site.index[i]] = share * kept + (1 - share) * gone if mean else kept + gone
            value[site.index[j]] = 0
        alive[group].remove(j)
    return path


NETWORKS = ["concatenated", "gru_and_rnn", "resnet", "cnn_flattened", "squeeze_excite", "lstm_two_layers_two_ways"]


@pytest.mark.parametrize("reference", ["initial", "current"])
@pytest.mark.parametrize("criterion", ["inout", "saliency"])
@pytest.mark.parametrize("rule", ["fold", "ifm"])
@pytest.mark.parametrize("name", some(NETWORKS))
def test_the_path_is_that_of_a_plain_loop(name, rule, criterion, reference):
    torch.manual_seed(1)
    model, inputs = CASES[name].build()
    found = merger(model, inputs)
    tensors = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
    options = {"rule": rule, "criterion": criterion, "reference": reference}
    path = merge_path(tensors, found.sites, **options)
    plain = plain_path(tensors, found.sites, rule, criterion, reference)
    assert [tuple(step[:3]) for step in path] == [step[:3] for step in plain]
    for own, other in zip(path, plain, strict=True):
        assert own[3:5] == pytest.approx(other[3:5], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("rule", ["fold", "ifm"])
def test_what_is_written_is_what_the_path_reached(rule):
    """Check that a cut at once gives the same network as merging step by step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 2)).double()
    found = merger(model, torch.randn(3, 4).double(), rule=rule)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for step in found.path[:9]:
        for site in found.sites[step.group]:
            value = state[site.key].movedim(site.axis, 0)
            mean = site.reads != (rule == "fold")
            a, b = (step.share, 1 - step.share) if mean else (1, 1)
            value[site.index[step.kept]] = a * value[site.index[step.kept]] + b * value[site.index[step.gone]]
            value[site.index[step.gone]] = 0
    clusters = found._clusters(found.path[:9])
    small = found.shrink(widths={g: len(c) for g, c in clusters.items()})
    assert small.clusters == clusters
    x = torch.randn(20, 4).double()
    torch.testing.assert_close(small.module(x), torch.func.functional_call(model, state, (x,)))


@pytest.mark.parametrize("criterion", ["inout", "saliency"])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()])
def test_the_error_never_exceeds_the_bound(activation, criterion, deep):
    generator = torch.Generator().manual_seed(0)
    for seed in range(5 if deep else 1):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 20), activation, nn.Linear(20, 3)).double()
        x = torch.randn(500, 5, generator=generator).double()
        found = merger(model, x, criterion=criterion)
        for width in (19, 15, 8, 2, 1):
            small = found.shrink(widths=width)
            error = (small.module(x) - model(x)).detach().norm(dim=1)
            size = torch.cat([x, torch.ones(500, 1)], 1).norm(dim=1)
            assert float((error / size).max()) <= small.bounds["0"] * (1 + 1e-9)
        assert error.max() > 0.01  # the bound is one on something


def test_bounds_are_those_of_each_group_alone(deep):
    for seed in range(30 if deep else 3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 2)).double()
        model[2].bias.data.zero_()
        x = torch.randn(200, 3).double()
        small = merger(model, x).shrink(widths={"0": 4})
        change = (small.module[:3](x) - model[:3](x)).detach().norm(dim=1)
        size = torch.cat([x, torch.ones(200, 1)], 1).norm(dim=1)
        assert float((change / size).max()) <= small.bounds["0"] * (1 + 1e-9)
        assert small.bounds["2"] == 0
    convolutions = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 3))  # where patches overlap
    assert merger(convolutions, torch.randn(1, 2, 8, 8)).shrink(widths=2).bounds == {}


def test_channels_that_differ_in_a_bias_or_a_norm_are_not_equal():
    torch.manual_seed(0)
    x = torch.randn(20, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    found = merger(model, x)
    twin(found, "0", 1, 3, read_alike=True)
    model[0].bias.data[3] += 1
    assert found.shrink(beta=0.0).widths["0"] == (6, 6)
    for criterion in ("inout", "saliency"):
        model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
        found = merger(model, x, criterion=criterion)
        twin(found, "0", 1, 3, read_alike=True)
        model[1].running_mean[3] = -5
        assert found.shrink(beta=0.0).widths["0"] == (6, 6)


def test_constant_channels_are_equal_whatever_makes_them():
    model, x = normed(nn.ReLU()), torch.randn(2, 3, 12, 12).double()
    model[1].weight.data[:3] = 0
    model[1].bias.data[:3] = 0.5
    before = model(x)
    small = merger(model, x, criterion="saliency").shrink(beta=0.0)
    assert small.clusters["0"][0] == [0, 1, 2]
    assert gap(small.module(x), before) < 1e-12
    without_eps = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, eps=0.0), nn.ReLU(), nn.Linear(6, 3)).eval()
    without_eps[1].weight.data[:3] = 0
    assert merger(without_eps, torch.randn(5, 4)).shrink(widths=3).module(torch.randn(5, 4)).isfinite().all()


def test_merged_channels_keep_the_spread_of_what_they_were():
    """Check that the norm behind a merge accounts for the smaller spread of a mean of unequal channels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40, bias=False), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
    x = torch.randn(4000, 50)
    model(x)
    for _ in range(100):
        model[1](model[0](x))
    small = merger(model.eval(), x[:10]).shrink(widths=10).module
    after = small[1](small[0](x)).detach()
    torch.testing.assert_close(after.std(0), torch.ones(10), rtol=0.1, atol=0.0)


def test_numbers_beyond_the_type_are_refused_and_scales_are_kept():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval(), torch.randn(9, 4)
    nn.init.constant_(model[1].weight, 300.0)
    found = merger(model.half(), x.half(), criterion="saliency")
    twin(found, "0", 1, 3)
    small = found.shrink(beta=0.0)
    assert small.widths["0"] == (5, 6)
    assert gap(small.module(x.half()).float(), model(x.half()).float()) < 1e-2


def test_modes_stay_and_so_does_the_given_model():
    model, x = normed(nn.ReLU()), torch.randn(2, 3, 12, 12).double()
    model.train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    small = merger(model, x).shrink(widths=3).module
    for network in (model, small):
        assert [m.training for m in network] == [True, False, *[True] * 7]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Reading(nn.Module):
    """Module whose code depends on its width."""

    def __init__(self, factor):
        super().__init__()
        self.a, self.b, self.factor = nn.Linear(4, 8), nn.Linear(8, 3), factor

    def forward(self, x):
        h = torch.relu(self.a(x))
        return (self.b(h) * self.factor(h.shape[-1])).masked_fill(torch.tensor([True, False, False]), -torch.inf)


def test_code_that_depends_on_the_width_is_found_out():
    x = torch.randn(5, 4)
    assert "another function without them" in merger(Reading(lambda n: n), x).refused["a"]
    late = merger(Reading(lambda n: 2 if n == 4 else 1), x)
    assert late.shrink(widths=5).widths["a"] == (5, 8)
    with pytest.raises(InputError, match="its code depends on its width"):
        late.shrink(widths=4)


class Halves(nn.Module):
    """Block whose code cuts its channels into two halves, like C2f of YOLO."""

    def __init__(self, width, cut):
        super().__init__()
        self.stem, self.into = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 2 * width, 1)
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.out, self.head, self.cut = nn.Conv2d(3 * width, 12, 1), nn.Conv2d(12, 4, 1), cut

    def forward(self, x):
        first, second = self.cut(self.into(self.stem(x).relu()).relu())
        third = second + self.b(self.a(second).relu()).relu()
        return self.head(self.out(torch.cat([first, second, third], 1)).relu()).mean((2, 3))


@pytest.mark.parametrize("width", some([3, 2, 8]))
@pytest.mark.parametrize(
    "cut",
    [
        lambda h: h.chunk(2, 1),
        lambda h: h.split(h.shape[1] // 2, 1)[:2],
        lambda h: (h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :]),
        lambda h: (h.narrow(1, 0, h.shape[1] // 2), h.narrow(1, h.shape[1] // 2, h.shape[1] - h.shape[1] // 2)),
    ],
)
def test_halves_of_one_width_are_refused_before_anything_is_merged(width, cut):
    found = merger(Halves(width, cut).eval(), torch.randn(2, 3, 5, 5))
    assert any("into" in group for group in found.refused)
    assert {"stem", "a", "out"} <= set(found.groups)
    least = found.count(found._clusters(found.path)) / found.count(found._clusters([]))
    for share in (0.9, 0.7, 0.5, 1.01 * least):
        assert found.shrink(parameters=share).kept <= share


def test_the_default_is_the_bound_and_the_papers_rule_keeps_its_own():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    assert merger(model, x).criterion == "saliency"
    assert merger(model, x).path == merger(model, x, criterion="saliency").path
    assert merger(model, x, rule="ifm").criterion == "inout"


def test_layers_that_must_be_of_one_width_are_refused():
    model = nn.GRU(4, 5, num_layers=2)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = model, nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    found = merger(Head(), torch.randn(6, 3, 4))
    assert not found.groups
    assert all("does not run with fewer" in why for why in found.refused.values())


def test_wide_neighbors_follow_in_steps(deep):
    """Check that updating distances for neighbors in batches, in layers wider than 64, hardly changes the path."""
    torch.manual_seed(0)
    a, b = (130, 70) if deep else (68, 66)
    model = nn.Sequential(nn.Linear(9, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 3)).double()
    found = merger(model, torch.randn(3, 9).double(), criterion="inout")
    plain = plain_path(found._state(), found.sites, "fold", "inout", "initial", steps=12 if deep else 3)
    assert {step[:3] for step in plain} <= {tuple(step[:3]) for step in found.path[:16]}
    clusters = found._clusters(found.path[:100])
    small = found.shrink(widths={g: len(c) for g, c in clusters.items()})
    assert small.module(torch.randn(2, 9).double()).isfinite().all()


def test_nothing_changes_without_equal_channels():
    model, x = normed(nn.ReLU()).float(), torch.randn(2, 3, 12, 12)
    small = merger(model, x).shrink(beta=0.0)
    assert small.kept == 1
    for key, value in model.state_dict().items():
        assert torch.equal(small.module.state_dict()[key], value)


@pytest.mark.parametrize("rule", ["fold", "ifm"])
def test_the_order_of_channels_does_not_matter(rule):
    torch.manual_seed(0)
    model, x = normed(nn.ReLU()), torch.randn(4, 3, 12, 12).double()
    found = merger(model, x, rule=rule)
    other = merger(Permutation.random(found.spec, torch.Generator().manual_seed(1)).apply(model), x, rule=rule)
    for beta in (0.1, 0.4, 0.8):
        a, b = found.shrink(beta=beta), other.shrink(beta=beta)
        assert a.widths == b.widths
        torch.testing.assert_close(a.module(x), b.module(x))


@pytest.mark.parametrize("norm", [False, True])
def test_channels_equal_up_to_a_positive_scale(norm):
    torch.manual_seed(0)
    hidden = [nn.BatchNorm1d(9)] if norm else []
    model = nn.Sequential(nn.Linear(4, 9), *hidden, nn.ReLU(), nn.Linear(9, 2)).double().eval()
    x = torch.randn(30, 4).double()
    last = model[1] if norm else model[0]
    with torch.no_grad():
        if norm:
            last.weight.uniform_(0.5, 2)
            last.bias.normal_()
            last.running_mean.normal_()
            for value in (model[0].weight, model[0].bias, last.running_mean, last.running_var):
                value[7] = value[2]
        last.weight[7], last.bias[7] = 3 * last.weight[2], 3 * last.bias[2]
    before = model(x)
    found = merger(model, x, criterion="saliency", modulo_scale=True)
    small = found.shrink(beta=1e-12)
    assert [2, 7] in small.clusters["0"]
    assert small.widths["0"] == (8, 9)
    assert gap(small.module(x), before) < 1e-12
    assert merger(model, x, criterion="saliency").shrink(beta=1e-12).kept == 1
    tanh = nn.Sequential(*[nn.Tanh() if isinstance(m, nn.ReLU) else m for m in model])
    assert merger(tanh, x, criterion="saliency", modulo_scale=True).shrink(beta=1e-12).kept == 1


def test_widths_fall_with_the_threshold_and_clusters_are_partitions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 25), nn.ReLU(), nn.Linear(25, 3))
    found = merger(model, torch.randn(2, 6))
    betas = [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 0.99]
    for group, curve in found.complexity(betas).items():
        assert curve == sorted(curve, reverse=True)
        for beta in betas:
            clusters = found.clusters(beta=beta)[group]
            assert sorted(c for own in clusters for c in own) == list(range(found.groups[group]))


def test_planted_features_are_counted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3))
    copies = torch.randint(0, 7, (40,)), torch.randint(0, 5, (24,))
    distinct = [len(c.unique()) for c in copies]
    for layer, own in zip((model[0], model[2]), copies, strict=True):
        layer.weight.data, layer.bias.data = layer.weight.data[own], layer.bias.data[own]
    betas = [0.0, 1e-9, 1e-6, 1e-4]
    found = feature_complexity(model, torch.randn(2, 6), betas, criterion="saliency")
    assert found == {"0": [distinct[0]] * 4, "2": [distinct[1]] * 4}
    # the paper's distance counts what reads the channels too, which differs between copies
    assert feature_complexity(model, torch.randn(2, 6), [1e-9], criterion="inout")["0"] == [40]


def test_a_budget_of_parameters_is_met_by_the_largest_cut():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 25), nn.ReLU(), nn.Linear(25, 3))
    found = merger(model, torch.randn(2, 6))
    for share in (1.0, 0.7, 0.31, 0.1):
        small = found.shrink(parameters=share)
        assert small.kept <= share
        steps = sum(before - after for after, before in small.widths.values())
        if steps:
            assert found.count(found._clusters(found.path[: steps - 1])) / small.parameters[1] > share
    with pytest.raises(InputError, match="parameters must be at least"):
        found.shrink(parameters=0.001)


def test_shrunk_parameters_load_into_the_architecture_again(tmp_path):
    model, x = normed(nn.ReLU()), torch.randn(4, 3, 12, 12).double()
    small = merger(model, x).shrink(widths={"0": 5, "3": 2})
    save_file(small.module.state_dict(), tmp_path / "small.safetensors")
    again = resize(normed(nn.ReLU()), load_file(tmp_path / "small.safetensors")).eval()
    assert torch.equal(again(x), small.module(x))
    assert (again[0].out_channels, again[1].num_features, again[3].in_channels, again[8].in_features) == (5, 5, 5, 2)
    optimizer = torch.optim.SGD(small.module.train().parameters(), 0.1)
    small.module(x).square().mean().backward()
    optimizer.step()  # a module like any other
    with pytest.raises(InputError, match=r"'9.weight' is in the parameters only"):
        resize(model, {**model.state_dict(), "9.weight": x})
    with pytest.raises(InputError, match=r"'0.bias' is in the module only"):
        resize(model, {k: v for k, v in model.state_dict().items() if k != "0.bias"})


@pytest.mark.parametrize("kind", some(["GPT2", "Llama"]))
def test_a_language_model_shrinks_at_its_feed_forward_layers(kind, deep):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    layers = 2 if deep else 1
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": layers}
    if kind == "GPT2":
        config = transformers.GPT2Config(vocab_size=50, n_embd=24, n_layer=layers, n_head=4)
        model = transformers.GPT2LMHeadModel(config).eval()
    else:
        config = transformers.LlamaConfig(vocab_size=50, intermediate_size=40, **sizes)
        model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 50, (2, 8))
    found = merger(model, {"input_ids": ids, "use_cache": False}, outputs=lambda out: out.logits, criterion="saliency")
    assert sum("mlp" in group for group in found.groups) == layers  # heads too, where the code leaves their number open
    for group, size in found.groups.items():
        twin(found, group, 0, size - 1)
    small = found.shrink(beta=0.0)
    torch.testing.assert_close(small.module(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)
    assert small.kept < 1
    assert small.module.get_output_embeddings().weight.shape == model.get_output_embeddings().weight.shape
    small = found.shrink(widths={g: 10 for g in found.groups if "mlp" in g})
    assert small.module(ids).logits.shape == (2, 8, 50)
    assert small.parameters[0] == sum(p.numel() for p in small.module.parameters())


def test_what_can_not_be_merged_says_why():
    model, inputs = CASES["gpt_tied"].build()
    found = merger(model, inputs)
    assert "a norm or a sum runs over the channels" in found.refused["blocks.0.out"]
    assert "differ by the index" in found.refused["blocks.0.qkv[1]"]
    autoencoder = CASES["torch_encoder_layer"].build()
    assert "does not run with fewer" in merger(*autoencoder).refused["self_attn[0]"]
    with pytest.warns(UserWarning, match="no group of channels can be merged"):
        nothing = FeatureMerger(nn.Linear(3, 2), torch.randn(2, 3))
    assert nothing.shrink(beta=0.5).kept == 1


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))

    def forward(self, x):
        return torch.tanh(x @ self.weight.T) @ self.weight


def test_a_weight_that_makes_and_reads_its_channels_is_left_alone():
    found = merger(Tied(), torch.randn(4, 3))
    assert not found.groups
    assert found.refused


def model():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("rule must be one of fold, ifm, got 'mean'", {"rule": "mean"}),
        ("criterion must be one of", {"criterion": "l1"}),
        ("reference must be one of", {"reference": "last"}),
        ('goes with the criterion "inout"', {"rule": "ifm", "criterion": "saliency"}),
        ('"activations" needs batches', {"criterion": "activations"}),
        ("the others take none", {"batches": [torch.randn(2, 4)]}),
        ("no batch was given", {"criterion": "activations", "batches": []}),
        ("must have the shapes of the example", {"criterion": "activations", "batches": [torch.randn(3, 4)]}),
        ("hold NaN", {"criterion": "activations", "batches": [torch.full((2, 4), torch.nan)]}),
    ],
)
def test_bad_options_are_refused(message, options, unchecked):
    with pytest.raises(InputError, match=message):
        FeatureMerger(model(), torch.randn(2, 4), **options)


@pytest.mark.parametrize(
    ("message", "cut"),
    [
        ("one of beta, parameters and widths", {}),
        ("one of beta, parameters and widths", {"beta": 0.1, "widths": 3}),
        ("beta must be at least 0 and below 1, got 1.0", {"beta": 1.0}),
        ("beta must be", {"beta": -0.1}),
        ("beta must be", {"beta": float("nan")}),
        ("parameters must be a share", {"parameters": 0.0}),
        ("parameters must be a share", {"parameters": 1.5}),
        ("the width of '0' must be a whole number of at least 1, got 0", {"widths": 0}),
        ("a whole number of at least 1, got 2.5", {"widths": {"0": 2.5}}),
        ("a whole number of at least 1, got True", {"widths": True}),
        ("'7' can't be merged: there is no such group", {"widths": {"7": 3}}),
    ],
)
def test_bad_cuts_are_refused(message, cut, unchecked):
    with pytest.raises(InputError, match=message):
        FeatureMerger(model(), torch.randn(2, 4)).shrink(**cut)


def test_bad_weights_are_refused_by_name():
    broken = model()
    broken[0].weight.data[1, 1] = torch.inf
    with pytest.raises(InputError, match=r"'0.weight' holds NaN or infinities"):
        FeatureMerger(broken, torch.randn(2, 4))
    with pytest.raises(InputError, match="meta device"):
        FeatureMerger(model().to("meta"), torch.randn(2, 4, device="meta"))
    with pytest.raises(InputError, match="does not run on the example"):
        FeatureMerger(model(), torch.randint(0, 3, (2, 4)))
    with pytest.raises(InputError, match="returns no finite number"):
        FeatureMerger(model(), torch.full((2, 4), torch.nan))
    with pytest.raises(InputError, match="not a partition"):
        FeatureMerger(model(), torch.randn(2, 4)).merged({"0": [[0, 1], [1, 2, 3, 4, 5]]})
    by_hand = PermutationSpec.from_axes({"0.bias": ("h",)}, model().state_dict())
    with pytest.raises(InputError, match="derived"):
        FeatureMerger(model(), torch.randn(2, 4), spec=by_hand)
