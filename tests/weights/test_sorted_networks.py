"""Sorted networks: nested slices of any module, cut in place and as modules of their own."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from sorted_nets import CASES, Attention, Deep, FixedHeads, case, flattened
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec, prefix
from commutant.weights import (
    EarlyExit,
    Menu,
    SortedModule,
    cost,
    pareto,
    segment_spec,
    select,
    sort_channels,
    sorted_loss,
    weight_matching,
)

WIDTHS = Menu.product(width=[0.25, 0.4, 0.5, 0.75, 1.0])


def nested_of(name, **options):
    model, x, groups = case(name)
    return SortedModule(model, x, {"width": "auto"}, WIDTHS, **options), x, groups


def deep(**options):
    torch.manual_seed(0)
    model, x = Deep(), torch.randn(7, 6)
    menu = Menu.product(depth=[1, 2, 4], width=[4, 8, 16])
    return SortedModule(model, x, {"depth": "blocks.*", "width": "blocks.*.up"}, menu, **options), x


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def statistics_are_known(nested):
    """Suppress the warning about batch norms."""
    nested.statistics.warned |= {None, *nested.menu}
    return nested


@pytest.mark.parametrize("name", CASES)
def test_sub_networks_in_place_and_extracted_agree_bit_by_bit(name):
    nested, x, groups = nested_of(name)
    statistics_are_known(nested)
    assert nested.dims["width"].sizes == groups
    assert torch.equal(nested(x), nested.module(x))  # law 1
    for budget in nested.menu:
        small = nested.extract(budget)
        nested.zero_grad()
        with nested.budget(**budget):
            y = nested(x)
        assert torch.equal(y, small(x))
        assert torch.equal(y, nested.extract(budget, share=True)(x))
        direction = torch.randn_like(y)
        (y * direction).sum().backward()
        (small(x) * direction).sum().backward()
        full = dict(nested.module.named_parameters())
        for key, value in small.named_parameters():
            own = nested._cut(budget).sliced(key, full[key].grad)
            torch.testing.assert_close(own, value.grad)  # law 3
            inside = nested._cut(budget).sliced(key, torch.ones_like(full[key]))
            assert int(full[key].grad.count_nonzero()) <= inside.numel()  # law 4
            torch.testing.assert_close(full[key].grad.double().abs().sum(), own.double().abs().sum())
        assert nested.count(budget) == sum(p.numel() for p in small.parameters())
    assert [type(p) for p in nested.module.parameters()] == [nn.Parameter] * len(list(nested.module.parameters()))


@pytest.mark.parametrize("name", ["linear", "gated", "attention", "gru", "flattened", "depthwise", "joined"])
def test_a_sub_network_is_the_full_one_whose_readers_ignore_the_rest(name):
    """Compare with a full network in which the weights that read the channels cut are zero, built by hand."""
    readers = {"linear": ["2.weight"], "gated": ["b.weight"], "attention": ["out.weight"], "joined": ["out.weight"],
               "gru": ["rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1", "out.weight"],
               "flattened": ["4.weight", "6.weight"], "depthwise": ["7.weight"]}[name]  # fmt: skip
    nested, x, _ = nested_of(name)
    statistics_are_known(nested)
    for budget in list(nested.menu)[:3]:
        silenced = copy.deepcopy(nested.module)
        small = nested.extract(budget).state_dict()
        for key, value in silenced.named_parameters():
            if key in readers:
                columns = value.data.transpose(0, 1)
                mask = torch.zeros(len(columns), dtype=torch.bool)
                if name == "joined":
                    k = {0.25: (2, 1), 0.4: (3, 2), 0.5: (3, 2)}[budget["width"]]
                    mask[[*range(k[0]), *range(6, 6 + k[1])]] = True
                else:
                    mask[: small[key].shape[1]] = True
                columns[~mask] = 0
        with nested.budget(**budget):
            torch.testing.assert_close(nested(x), silenced(x), rtol=1e-5, atol=1e-5)


def test_slices_are_views_where_the_first_channels_come_first():
    nested, _, _ = nested_of("linear")
    small = nested.extract({"width": 0.5}, share=True)
    for key, value in small.named_parameters():
        assert (
            value.untyped_storage().data_ptr()
            == dict(nested.module.named_parameters())[key].untyped_storage().data_ptr()
        )
    assert {k: tuple(v.shape) for k, v in small.named_parameters()} == {
        "0.weight": (6, 6), "0.bias": (6,), "2.weight": (3, 6), "2.bias": (3,)}  # fmt: skip


def test_budgets_form_a_semilattice_and_slices_are_nested():
    menu = Menu.product(depth=[1, 2, 3], width=[0.25, 0.5, 1.0])
    for a in menu:
        assert a.meet(a) == a
        assert a.meet(menu[-1]) == a
        for b in menu:
            assert a.meet(b) == b.meet(a)
            assert a.meet(b) in menu
            assert a.meet(b).within(a)
            assert all(a.meet(b).meet(c) == a.meet(b.meet(c)) for c in menu)
    spec = PermutationSpec.from_module(*case("gru")[:2])
    labels = spec.axes["rnn.weight_hh_l0"]
    weight = torch.randn(36, 12)
    small = prefix(weight, labels, {"rnn": 5})
    assert torch.equal(small, torch.cat([g[:5, :5] for g in weight.chunk(3)]))
    smaller = PermutationSpec.from_axes({"w": [None, None]}, {"w": small})
    assert smaller.axes  # slices of slices: the three gates have five rows each
    assert torch.equal(torch.cat([g[:2, :2] for g in small.chunk(3)]), prefix(weight, labels, {"rnn": 2}))
    with pytest.raises(InputError, match=r"must have shape \(36, 12\)"):
        prefix(weight.T, labels, {"rnn": 5})


def test_depth_and_width_together():
    nested, x = deep()
    model = nested.module
    for budget in nested.menu:

        def plain(x, depth=budget["depth"], k=budget["width"]):
            x = model.stem(x)
            for block in list(model.blocks)[:depth]:
                h = F.linear(block.norm(x), block.up.weight[:k], block.up.bias[:k]).relu()
                x = x + F.linear(h, block.down.weight[:, :k], block.down.bias)
            return model.head(model.norm(x))

        with nested.budget(**budget):
            torch.testing.assert_close(nested(x), plain(x))
            assert torch.equal(nested(x), nested.extract(budget)(x))
        assert len(nested.extract(budget).blocks) == budget["depth"]
    assert len(model.blocks) == 4


def test_depth_of_sequences_and_of_plain_attributes():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1, self.layer2, self.layer3 = (nn.Linear(4, 4) for _ in range(3))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.layer3(self.layer2(self.layer1(x))))

    x = torch.randn(3, 4)
    nested = SortedModule(Named(), x, {"depth": "layer*"}, Menu.product(depth=[1, 2, 3]))
    with nested.budget(depth=1):
        assert torch.equal(nested(x), nested.module.head(nested.module.layer1(x)))
    assert nested.count({"depth": 1}) == 20 + 10
    stack = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    nested = SortedModule(stack, x, {"depth": ["0", "1"]}, Menu.product(depth=[1, 2]))
    with nested.budget(depth=1):
        assert torch.equal(nested(x), stack[2](stack[0](x)))


def test_losses_are_unbiased_and_share_passes_of_equal_width():
    nested, x = deep()
    y = torch.randint(0, 3, (7,))
    whole_menu = sorted_loss(nested, (x, y), cross_entropy, mode="sum")
    each = []
    for budget in nested.menu:
        with nested.budget(**budget):
            each.append(cross_entropy(nested, (x, y)))
    torch.testing.assert_close(whole_menu, torch.stack(each).mean())  # laws 5 and 6
    shared = torch.autograd.grad(whole_menu, list(nested.parameters()))
    apart = torch.autograd.grad(torch.stack(each).mean(), list(nested.parameters()))
    for a, b in zip(shared, apart, strict=True):
        torch.testing.assert_close(a, b)
    calls = []
    nested.module.blocks[0].up.register_forward_hook(lambda *_: calls.append(1))
    sorted_loss(nested, (x, y), cross_entropy, mode="sum")
    assert len(calls) == 3  # one pass for each width
    drawn = [nested.draw() for _ in range(300)]
    assert set(drawn) == set(nested.menu)
    again, _ = deep()
    assert [again.draw() for _ in range(300)] == drawn
    assert {nested.draw([0] * 8 + [1]) for _ in range(5)} == {nested.menu[-1]}
    parts = sorted_loss(nested, (x, y), lambda net, batch: batch[0].sum() * 0 + len(batch[0]), samples=3)
    assert float(parts) == pytest.approx(3 * 3 / 7 + 2 * 2 / 7 + 2 * 2 / 7)
    ends = []
    sorted_loss(
        nested, (x, y), lambda net, b: ends.append(net.current) or cross_entropy(net, b), mode="sandwich", samples=3
    )
    assert ends[:2] == [nested.menu[-1], nested.menu[0]]
    assert len(ends) == 3
    assert nested.current is None


def test_other_inputs_are_not_answered_from_a_shared_pass():
    nested, x = deep()
    other = torch.randn(7, 6)
    with nested.one_pass():
        nested.set_budget({"depth": 4})
        nested(x)
        nested.set_budget({"depth": 2})
        found = nested(other)
    with nested.budget(depth=2):
        assert torch.equal(found, nested(other))


@pytest.mark.parametrize("name", ["linear", "attention", "gru", "depthwise", "joined", "encoder"])
def test_permutations_inside_segments_keep_every_sub_network(name):
    nested, x, groups = nested_of(name)
    statistics_are_known(nested)

    def outputs(model):
        twin = statistics_are_known(SortedModule(model, x, {"width": "auto"}, WIDTHS))
        return torch.stack([twin.extract(budget)(x).detach() for budget in twin.menu])

    spec = segment_spec(nested)
    generator = torch.Generator().manual_seed(0)
    before = outputs(nested.module)
    changed = 0
    for _ in range(4):
        moved = Permutation.random(spec, generator).apply(nested.module)
        changed += any(
            not torch.equal(a, b) for a, b in zip(moved.parameters(), nested.module.parameters(), strict=True)
        )
        torch.testing.assert_close(outputs(moved), before, rtol=1e-4, atol=1e-5)
    assert changed
    for group, size in groups.items():
        assert sum(n for g, n in spec.sizes.items() if g.startswith(group + "[") and not spec.parents[g]) == size
    across = {g: torch.arange(n).flip(0) for g, n in groups.items()}
    moved = outputs(Permutation(nested.spec, across).apply(nested.module))
    torch.testing.assert_close(moved[-1], before[-1], rtol=1e-4, atol=1e-5)
    assert float((moved[0] - before[0]).abs().max()) > 1e-2


def test_two_sorted_networks_are_aligned_at_every_width():
    model, x, _ = case("linear")
    nested = SortedModule(model, x, {"width": "auto"}, Menu.product(width=[3, 6, 12]))
    spec = segment_spec(nested)
    planted = Permutation.random(spec, torch.Generator().manual_seed(1))
    assert weight_matching(spec, model, planted.apply(model)) == planted.inverse()


def test_early_exits_are_the_sub_networks_and_compute_no_more():
    torch.manual_seed(0)
    model, x = Deep(), torch.randn(40, 6)
    nested = SortedModule(model, x, {"depth": "blocks.*"}, Menu.product(depth=[1, 2, 4]))
    exits = EarlyExit(nested, 0.5)
    rows = [0] * 4
    for i, block in enumerate(model.blocks):
        block.up.register_forward_hook(lambda m, a, out, i=i: rows.__setitem__(i, rows[i] + len(out)))
    found = exits(x)
    counted = list(rows)
    assert set(found.exits.tolist()) == {0, 1, 2}
    assert counted == [40, int((found.exits > 0).sum()), *[int((found.exits > 1).sum())] * 2]
    for i, budget in enumerate(nested.menu):
        with nested.budget(**budget):
            torch.testing.assert_close(found.logits[found.exits == i], nested(x)[found.exits == i])
            confident = nested(x).softmax(1).amax(1) > 0.5
        assert bool(confident[found.exits == i].all()) or i == 2
    assert set(EarlyExit(nested, 1.0)(x).exits.tolist()) == {2}
    assert set(EarlyExit(nested, [0.0, 0.0])(x).exits.tolist()) == {0}
    with pytest.raises(InputError, match="2 probabilities"):
        EarlyExit(nested, [0.5])
    with pytest.raises(InputError, match="depth only"):
        EarlyExit(deep()[0], 0.5)


@pytest.mark.parametrize("name", ["flattened", "joined"])
def test_batch_norms_have_statistics_for_each_budget(name):
    nested, x, _ = nested_of(name)
    data = [torch.randn(16, *x.shape[1:]) * 3 + 1 for _ in range(3)]
    nested.train()
    for batch in data:
        with nested.budget(**nested.draw()):
            nested(batch)
    nested.eval()
    for budget in (nested.menu[0], None):
        nested.set_budget(budget)
        with pytest.warns(UserWarning, match="call calibrate"):
            nested(x)
        nested(x)  # warned once
    nested.calibrate(data)
    for budget in nested.menu:
        small = nested.extract(budget)
        with nested.budget(**budget):
            assert torch.equal(nested(x), small(x))
        norm = next(m for m in small.modules() if isinstance(m, nn.BatchNorm2d))
        seen = []
        norm.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            [small(batch) for batch in data]
        torch.testing.assert_close(norm.running_mean, torch.stack([s.mean((0, 2, 3)) for s in seen]).mean(0))
    state = copy.deepcopy(nested.state_dict())
    fresh, _, _ = nested_of(name)
    fresh.load_state_dict(state)
    nested.set_budget(nested.menu[1])
    fresh.set_budget(nested.menu[1])
    assert torch.equal(fresh(x), nested(x))
    assert case(name)[0].load_state_dict(nested.module.state_dict())  # a plain model loads it without the library
    with torch.no_grad():
        next(fresh.parameters()).mul_(1.01)  # as a training step does
    with pytest.warns(UserWarning, match="call calibrate"):
        fresh(x)
    with pytest.raises(InputError, match="several times"):
        nested.calibrate(iter(data))
    with pytest.raises(InputError, match="no batch"):
        nested.calibrate([])


def test_running_statistics_of_channels_that_are_not_contiguous_are_updated():
    nested, _x, _ = nested_of("joined")
    nested.train()
    before = nested.module.norm.running_mean.clone()
    with nested.budget(width=0.5):
        nested(torch.randn(8, 3, 6, 6) + 2)
    moved = (nested.module.norm.running_mean != before).nonzero().flatten().tolist()
    assert moved == [0, 1, 2, 6, 7]


@pytest.mark.parametrize("importance", ["l2", "taylor"])
@pytest.mark.parametrize("name", ["linear", "attention", "gru", "depthwise"])
def test_sorting_channels_is_exact(name, importance):
    model, x, _ = case(name)
    spec = PermutationSpec.from_module(model, x)
    options = {} if importance == "l2" else {
        "batches": [x, 2 * x], "loss_fn": lambda net, batch: net(batch).square().mean()}  # fmt: skip
    done = sort_channels(model, spec, importance, **options)
    torch.testing.assert_close(done(x), model(x), rtol=1e-4, atol=1e-5)
    if name == "linear" and importance == "l2":
        size = done[0].weight.square().sum(1) + done[2].weight.square().sum(0)
        assert bool((size.diff() <= 0).all())
    if name == "attention" and importance == "l2":
        inner = done.qkv.weight.view(3, 4, 6, 24)[2].square().sum(-1)
        inner = inner + done.out.weight.view(24, 4, 6).square().sum(0)
        assert bool((inner.diff(dim=-1) <= 1e-6).all())
    if importance == "taylor":
        with pytest.raises(InputError, match="needs batches"):
            sort_channels(model, spec, "taylor")
        with pytest.raises(InputError, match="no batch"):
            sort_channels(model, spec, "taylor", batches=[], loss_fn=options["loss_fn"])


def test_a_budget_is_chosen_by_its_cost():
    nested, _x = deep()
    assert select(nested, max_params=10**9) == nested.menu[-1]
    for budget in nested.menu:
        found = cost(nested, budget)
        depth, width = budget.values()
        assert found.macs == 7 * (6 * 8 + depth * 2 * 8 * width + 8 * 3)
        assert found.parameters == 6 * 8 + 8 + depth * (16 + 8 * width + width + 8 * width + 8) + 16 + 27
        assert cost(nested, select(nested, max_params=found.parameters)).parameters == found.parameters
    assert cost(nested, nested.menu[0], timed=True).seconds > 0
    assert select(nested, max_latency=1e9, max_macs=10**9) == nested.menu[-1]
    with pytest.raises(InputError, match="the least are"):
        select(nested, max_macs=10)
    with pytest.raises(InputError, match="at least one"):
        select(nested)


def test_costs_and_scores_are_a_table_and_a_picture(tmp_path):
    nested, _ = deep()
    found = pareto(nested, lambda net: net.current["depth"] + net.current["width"] / 100)
    assert len(found.rows) == 9
    assert [r.parameters for r in found.rows] == sorted(r.parameters for r in found.rows)
    scores = [r.score for r in found.best]
    assert scores == sorted(scores)
    assert found.best[-1].budget == nested.menu[-1]
    assert str(found).count("\n") == 9
    assert "depth=4, width=16" in str(found)
    found.plot(tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 1000
    with pytest.raises(InputError, match="is nan"):
        pareto(nested, lambda net: float("nan"))


def test_code_that_fixes_a_width_is_found_out():
    x = torch.randn(2, 5, 24)
    with pytest.raises(InputError, match="computes another function"):
        SortedModule(FixedHeads(), x, {"heads": "auto"}, Menu.product(heads=[1, 2, 4]))

    class Halved(nn.Module):  # cuts a fixed number of channels
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(8, 2)

        def forward(self, x):
            h = self.a(x)
            return self.b(h[:, :8] * h[:, 8:])

    with pytest.raises(InputError, match="can't be cut"):
        SortedModule(Halved(), torch.randn(3, 4), {"width": "auto"}, Menu.product(width=[0.5, 1.0]))

    class Averaged(nn.Module):  # a mean over the channels depends on how many there are
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            h = self.a(x).relu()
            return self.b(h) * h.sum(1, keepdim=True)

    with pytest.raises(InputError, match="can't be cut"):
        SortedModule(Averaged(), torch.randn(3, 4), {"width": "auto"}, Menu.product(width=[0.5, 1.0]))


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused_and_why():
    x = torch.randn(4, 6)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    width = Menu.product(width=[4, 8])

    def refused(words, *args, **options):
        with pytest.raises(InputError, match=words):
            SortedModule(*args, **options)

    refused("can't keep 11 entries: '2' has 10", model, x, {"width": "auto"}, Menu.product(width=[11]))
    refused("give shares", model, x, {"width": "auto"}, width)
    refused("no group of the network; its groups are 0, 2", model, x, {"width": "5"}, width)
    refused("no module of the network", model, x, {"depth": "blocks.*"}, Menu.product(depth=[1]))
    refused("both must name the same", model, x, {"height": "auto"}, width)
    refused("in two dimensions", model, x, {"a": "0", "b": ["0", "2"]}, Menu.product(a=[1], b=[1]))
    refused("must be a Menu", model, x, {"width": "auto"}, [1, 2])
    refused("does not run on the example", model, torch.randn(4, 5), {"width": "auto"}, width)
    refused("returns no finite number", model, x * float("nan"), {"width": "auto"}, width)
    refused("identifier", model, x, {"my width": "auto"}, width)
    refused("can't be cut to depth=1", model, x, {"depth": ["0", "2"]}, Menu.product(depth=[1, 2]))
    for words, values in {
        "mix counts and shares": [0.5, 1], "at least 1": [0, 2], "above 0": [0.0, 0.5], "at most 1.0": [0.5, 1.5],
        "must be different": [2, 2], "must be a list": [], "must be a count or a share": [True, 2],
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=words):
            Menu.product(width=values)
    with pytest.raises(InputError, match="must be nested"):
        Menu.chain([{"depth": 1, "width": 8}, {"depth": 2, "width": 4}])
    with pytest.raises(InputError, match="twice in the menu"):
        Menu([{"depth": 1}, {"depth": 1}])
    with pytest.raises(InputError, match="needs a list of budgets"):
        Menu([])
    nested = SortedModule(model, x, {"width": "0"}, width)
    with pytest.raises(InputError, match=r"no budget width=5; its sizes are width 4, 8"):
        nested.set_budget({"width": 5})
    with pytest.raises(InputError, match="no dimension 'depth'; known are width"), nested.budget(depth=2):
        pass
    with pytest.raises(InputError, match="2 finite numbers"):
        nested.draw([1.0])
    with pytest.raises(InputError, match="scalar"):
        sorted_loss(nested, (x,), lambda net, batch: net(batch[0]))
    with pytest.raises(InputError, match="needs 9 rows, got 4"):
        sorted_loss(nested, (x,), lambda net, batch: net(batch[0]).mean(), samples=9)
    with pytest.raises(InputError, match="2 or more"):
        sorted_loss(nested, (x,), lambda net, batch: net(batch[0]).mean(), mode="sandwich")


def test_a_failing_call_leaves_the_network_as_it_was():
    nested, x, _ = nested_of("attention")
    before = {k: id(v) for k, v in nested.module.named_parameters()}
    with pytest.raises(RuntimeError), nested.budget(width=0.5):
        nested(x[..., :-1])
    assert {k: id(v) for k, v in nested.module.named_parameters()} == before
    assert nested.module.heads == 4
    assert nested.current is None


def test_copies_and_pickles_work_alone():
    nested, x = deep()
    with nested.budget(depth=2, width=4):
        y = nested(x)
    for twin in (copy.deepcopy(nested), pickle.loads(pickle.dumps(nested))):
        with torch.no_grad():
            twin.module.stem.weight.mul_(2)
        with twin.budget(depth=2, width=4), nested.budget(depth=2, width=4):
            assert torch.equal(nested(x), y)
            assert not torch.equal(twin(x), y)
            assert torch.equal(twin(x), twin.extract({"depth": 2, "width": 4})(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    torch.manual_seed(0)
    model, x = Attention().to(dtype), torch.randn(2, 5, 24).to(dtype)
    nested = SortedModule(model, x, {"heads": "auto"}, Menu.product(heads=[1, 3, 4]))
    for budget in nested.menu:
        with nested.budget(**budget):
            assert torch.equal(nested(x), nested.extract(budget)(x))


def test_nested_training_beats_a_cut_network():
    """Train on a task where a cut network fails; both take as many passes."""
    torch.manual_seed(0)
    x = torch.randn(512, 6)
    y = (x[:, :3].prod(1) > 0).long() + (x.norm(dim=1) > 2.3).long()
    scores = {}
    for kind in ("sorted", "full"):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
        nested = SortedModule(model, x, {"width": "auto"}, Menu.product(width=[8, 16, 32, 64]))
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(300):
            optimizer.zero_grad()
            loss = sorted_loss(nested, (x, y), cross_entropy) if kind == "sorted" else cross_entropy(nested, (x, y))
            loss.backward()
            optimizer.step()
        with nested.budget(width=8):
            scores[kind] = float((nested(x).argmax(1) == y).float().mean())
    assert scores["sorted"] > scores["full"] + 0.1


def test_flattened_images_and_hooks_of_the_user():
    torch.manual_seed(0)
    model, x = flattened().eval(), torch.randn(2, 3, 6, 6)
    seen = []
    model[0].register_forward_hook(lambda m, a, out: seen.append(out.shape[1]))
    nested = statistics_are_known(SortedModule(model, x, {"width": "auto"}, WIDTHS))
    seen.clear()
    with warnings.catch_warnings(), nested.budget(width=0.25):
        nested(x)
    assert seen == [2]
