"""Permutation groups and their action on parameters."""

import networks
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.parameters._permutation import crossing
from depth import some

NAMES = ["mlp", "gpt_tied", "grouped_and_depthwise", "grouped_query_attention", "lstm_two_layers_two_ways", "resnet"]


@pytest.fixture(params=NAMES, scope="module")
def network(request):
    model, inputs = networks.CASES[request.param].build()
    return model, inputs, PermutationSpec.from_module(model, inputs, verify=False)


def draw(spec, seed):
    return Permutation.random(spec, torch.Generator().manual_seed(seed))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_composition_is_one_after_the_other(network):
    model, _, spec = network
    p, q, r, state = draw(spec, 1), draw(spec, 2), draw(spec, 3), model.state_dict()
    assert equal(p.compose(q).apply(state), q.apply(p.apply(state)))
    assert p.compose(q).compose(r) == p.compose(q.compose(r))
    if spec.sizes:
        assert p.compose(q) != q.compose(p)


def test_the_inverse_undoes_to_the_last_bit(network):
    model, _, spec = network
    p, identity = draw(spec, 1), Permutation(spec)
    assert p.compose(p.inverse()) == identity == p.inverse().compose(p)
    assert equal(p.inverse().apply(p.apply(model.state_dict())), model.state_dict())
    assert equal(identity.apply(model.state_dict()), model.state_dict())


def test_singular_values_stay(network):
    model, _, spec = network
    moved = draw(spec, 1).apply(model.state_dict())
    for key, value in model.state_dict().items():
        if value.ndim >= 2 and not crossing(spec.axes[key], spec.parents):  # grouped: each group of rows by itself
            before = torch.linalg.svdvals(value.flatten(1).double())
            torch.testing.assert_close(torch.linalg.svdvals(moved[key].flatten(1).double()), before)


def test_tied_entries_stay_tied():
    model, inputs = networks.CASES["gpt_tied"].build()
    spec = PermutationSpec.from_module(model, inputs)
    moved = draw(spec, 1).apply(model.state_dict())
    assert moved["embed.weight"].data_ptr() == moved["head.weight"].data_ptr()
    again = draw(spec, 1).apply(model)
    assert again.head.weight is again.embed.weight
    assert model.head.weight is model.embed.weight


def test_saving_and_loading(network, tmp_path):
    _, _, spec = network
    p = draw(spec, 1)
    p.save(tmp_path / "p.safetensors")
    assert Permutation.load(spec, tmp_path / "p.safetensors") == p
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "p.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"broken.safetensors can't be read"):
        Permutation.load(spec, tmp_path / "broken.safetensors")


def test_what_must_not_hold():
    """Check that stale statistics, or the mean of a network and its permuted copy, change the function."""
    model, inputs = networks.CASES["resnet"].build()
    model.load_state_dict(
        {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    )
    spec = PermutationSpec.from_module(model.eval(), inputs)
    state, p = model.state_dict(), draw(spec, 1)
    moved = p.apply(state)

    def out(s):
        return torch.func.functional_call(model, s, inputs)

    torch.testing.assert_close(out(moved), out(state))
    stale = moved | {k: v for k, v in state.items() if "running" in k}
    assert not torch.allclose(out(stale), out(state), rtol=1e-2)
    halfway = {k: (v + moved[k]) / 2 if v.is_floating_point() else v for k, v in state.items()}
    assert not torch.allclose(out(halfway), out(state), rtol=1e-2)


def test_a_spec_by_hand():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    by_hand = PermutationSpec.from_axes({"0.weight": ("h", None), "0.bias": ("h",), "2.weight": (None, "h")},
                                        model.state_dict())  # fmt: skip
    found = PermutationSpec.from_module(model, torch.randn(2, 3))
    p = draw(by_hand, 1)
    moved = p.apply(model.state_dict())
    assert equal(moved, Permutation(found, {"0": p.tables["h"]}).apply(model.state_dict()))


def test_examples_of_several_paths_meet():
    """Derive from two paths: the second reads the first hidden axis in order, so only the other group holds on both."""

    def forward(m, a):
        h = m.a(a).relu()
        return m.c(m.b(h if bool(a.sum() > 0) else h.cumsum(-1)).relu())

    model = networks.Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 5), c=nn.Linear(5, 2))
    with pytest.warns(UserWarning, match="only the path of the example was analyzed; pass inputs that take the other"):
        one = PermutationSpec.from_module(model, torch.ones(2, 3))
    assert one.sizes == {"a": 6, "b": 5}
    assert "torch.export could not follow" in one.summary()
    both = PermutationSpec.from_module(model, torch.ones(2, 3), also=[-torch.ones(2, 3)])
    assert both.sizes == {"b": 5}


def test_groups_may_be_frozen_by_hand():
    model, inputs = networks.CASES["grouped_and_depthwise"].build()
    spec = PermutationSpec.from_module(model, inputs)
    outer = next(g for g in spec.sizes if any(g in p for p in spec.parents.values()))
    less = spec.without([outer])
    assert outer not in less.sizes
    assert all(outer not in p for p in less.parents.values())
    assert less.log_order < spec.log_order


def test_unused_entries_are_not_groups():
    """Check positions beyond the length of the example, and a layer that is never called."""

    def forward(m, a):
        return m.b((m.a(a) + m.place[: a.shape[0]]).relu())

    model = networks.Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2), place=networks.p(9, 6), idle=nn.Linear(4, 4))
    spec = PermutationSpec.from_module(model, torch.randn(4, 3))
    assert spec.sizes == {"a": 6}
    assert spec.frozen["place", 0] == "an axis of the input"
    assert spec.frozen["idle.weight", 0] == "not used by the example"


def test_training_mode_is_given_back():
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 2))
    model[1].eval()
    PermutationSpec.from_module(model, torch.randn(2, 3))
    assert model.training
    assert not model[1].training


def test_a_model_on_meta_is_derived_but_not_verified():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        example = torch.randn(2, 3)
    spec = PermutationSpec.from_module(model, example)
    assert spec.sizes == {"0": 5}
    assert spec.error is None
    assert "not verified" in spec.summary()


def test_noise_is_no_symmetry():
    def forward(m, a):
        return m.b(torch.dropout(m.a(a), 0.5, True))

    with pytest.warns(UserWarning, match="two identical calls of the model give different outputs"):
        spec = PermutationSpec.from_module(
            networks.Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2)), torch.ones(2, 3)
        )
    assert spec.sizes == {}
    assert "no rule for aten.dropout" in spec.summary()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"x": torch.arange(7)}, "the spec has no group 'x'; its groups are 0, 3"),
        ({"0": torch.arange(6)}, r"the table of group '0' must be integers of shape \(7,\), got"),
        ({"0": torch.arange(7.0)}, r"must be integers of shape \(7,\), got torch.float32"),
        ({"0": torch.zeros(7, dtype=torch.long)}, "the table of group '0' is not a permutation of 0 to 6"),
    ],
)
def test_wrong_tables(unchecked, tables, message):
    model, inputs = networks.CASES["mlp"].build()
    with pytest.raises(InputError, match=message):
        Permutation(PermutationSpec.from_module(model, inputs), tables)


def test_wrong_parameters():
    model, inputs = networks.CASES["mlp"].build()
    spec = PermutationSpec.from_module(model, inputs)
    state = model.state_dict()
    short = {k: v for k, v in state.items() if k != "0.bias"}
    with pytest.raises(InputError, match=r"lack '0.bias' \(1 missing\)"):
        Permutation(spec).apply(short)
    with pytest.raises(InputError, match="have 'more' "):
        Permutation(spec).apply(state | {"more": torch.ones(1)})
    with pytest.raises(InputError, match=r"'0.bias' must have shape \(7,\), got \(8,\)"):
        Permutation(spec).apply(state | {"0.bias": torch.ones(8)})
    other = PermutationSpec.from_module(*networks.CASES["resnet"].build())
    with pytest.raises(InputError, match="different specs"):
        Permutation(spec).compose(Permutation(other))


def test_a_model_that_does_not_run_on_the_example():
    with pytest.raises(InputError, match="Linear could not be traced on the example inputs"):
        PermutationSpec.from_module(nn.Linear(3, 2), torch.randn(2, 4))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"nothing": ("h",)}, "no 'nothing'"),
        ({"weight": ("h",)}, "'weight' has 2 axes, but 1 are labeled"),
        ({"weight": ("h", "h")}, "group 'h' has 2 entries, but 3 in 'weight'"),
    ],
)
def test_wrong_specs_by_hand(axes, message):
    with pytest.raises(InputError, match=message):
        PermutationSpec.from_axes(axes, nn.Linear(3, 2).state_dict())


def halves_by_number(h):
    return [h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :]]


@pytest.mark.parametrize(
    ("width", "cut", "sizes"),
    [
        (12, lambda h: h.chunk(2, 1), [(6, 6)]),
        (12, halves_by_number, [(6, 6)]),
        (13, lambda h: h.chunk(2, 1), [(7, 6)]),
        (13, halves_by_number, [(6, 7)]),
        (12, lambda h: h.split(6, 1), [(6, 6)]),
        (12, lambda h: [h[:, :6], h[:, 6:]], [(6, 6)]),
        (12, lambda h: h.tensor_split(2, 1), [(6, 6)]),
        (12, lambda h: [h.narrow(1, 0, 6), h.narrow(1, 6, 6)], [(6, 6)]),
        (12, lambda h: h.split([4, 8], 1), []),
        (12, lambda h: [h, h[:, :1].expand_as(h)], []),
    ],
)
def test_parts_that_code_cuts_alike_are_named(width, cut, sizes):
    """Check a block that keeps the first half of its channels and continues with the second, like C2f of YOLO."""

    def forward(m, x):
        first, second = cut(m.a(x).relu())
        return m.c(torch.cat([first, second, m.b(second).tanh()], 1))

    a = torch.randn(2, 3, 4, 4)
    second = cut(torch.zeros(2, width, 4, 4))[1].shape[1]
    first = cut(torch.zeros(2, width, 4, 4))[0].shape[1]
    model = networks.Net(
        forward, a=nn.Conv2d(3, width, 1), b=nn.Conv2d(second, 5, 1), c=nn.Conv2d(first + second + 5, 2, 1)
    )
    spec = PermutationSpec.from_module(model, a)
    assert [tuple(label.size for label in parts) for parts in spec.equal_parts] == sizes
    for parts in spec.equal_parts:
        assert len({group for label in parts for group in label.groups()}) == 2
    assert spec.without(list(spec.sizes)).equal_parts == ()


def test_thirds_are_named_together():
    def forward(m, x):
        h = m.a(x)
        n = h.shape[1] // 3
        return m.b(torch.tanh(h[:, :n])) + m.c(h[:, n : 2 * n].relu()) * m.d(h[:, 2 * n :].sigmoid())

    parts = {name: nn.Linear(4, 2) for name in "bcd"}
    spec = PermutationSpec.from_module(networks.Net(forward, a=nn.Linear(3, 12), **parts), torch.randn(2, 3))
    assert [tuple(label.size for label in own) for own in spec.equal_parts] == [(4, 4, 4)]


def visited(m, x):
    """Build experts that are called only if a row selects them."""
    h = m.a(x).relu()
    chosen, out = m.r(h).argmax(-1), h
    for number, expert in enumerate(m.experts):
        if bool((chosen == number).any()):
            out = out + (chosen == number)[:, None] * expert(h)
    return m.b(out)


def merging(m, x):
    return m.b(F.linear(x, m.w if m.merged else m.w + m.up @ m.down).relu())


IDLE = {
    "experts": lambda: networks.Net(visited, a=nn.Linear(3, 6), r=nn.Linear(6, 4), b=nn.Linear(6, 2),
                                    experts=nn.ModuleList(nn.Linear(6, 6) for _ in range(4))),
    "an auxiliary head": lambda: networks.Net(lambda m, x: (m.b(m.a(x).relu()), m.c(m.a(x)) if m.training else None),
                                              a=nn.Linear(3, 6), b=nn.Linear(6, 2), c=nn.Linear(6, 4)),
    "an optional input": lambda: networks.Net(
        lambda m, x, y=None: m.b((m.a(x) + (0 if y is None else m.c(y))).relu()),
        a=nn.Linear(3, 6), b=nn.Linear(6, 2), c=nn.Linear(5, 6)),
    "an embedding of masked places": lambda: networks.Net(
        lambda m, x: m.b((torch.where(x[:, :1] > 9, m.e, m.a(x)) if m.training else m.a(x)).relu()),
        a=nn.Linear(3, 6), b=nn.Linear(6, 2), e=nn.Parameter(torch.randn(6))),
    "merged adapters": lambda: networks.Net(merging, w=networks.p(6, 3), up=networks.p(6, 2), down=networks.p(2, 3),
                                            b=nn.Linear(6, 2), merged=True),
}  # fmt: skip


@pytest.mark.parametrize("name", IDLE)
def test_entries_that_no_example_reads_are_named(name):
    torch.manual_seed(0)
    model = IDLE[name]()
    with pytest.warns(UserWarning, match=r"the example does not use '[a-z.0-9]+'.* whose shapes fit the groups"):
        spec = PermutationSpec.from_module(model, torch.randn(1, 3))
    assert 6 in spec.sizes.values()
    assert spec.idle
    assert all(set(groups) <= set(spec.sizes) for groups in spec.idle.values())
    assert "may break these symmetries" in spec.summary()
    assert not spec.without(list(spec.sizes)).idle


def test_further_examples_read_what_the_first_leaves_out():
    torch.manual_seed(0)
    more = torch.randn(200, 3) * 3
    spec = PermutationSpec.from_module(IDLE["experts"](), torch.randn(1, 3), also=[more])
    assert spec.idle == {}
    optional = IDLE["an optional input"]()
    spec = PermutationSpec.from_module(optional, torch.randn(1, 3), also=[(torch.randn(2, 3), torch.randn(2, 5))])
    assert spec.idle == {}
    assert ("c.weight", 0) in spec.uses("a")


class Adapter(nn.Module):
    """Low-rank adapter that `eval()` merges into the weight and `train()` removes again, like a LoRA layer."""

    def __init__(self, before, after):
        super().__init__()
        self.weight, self.merged = networks.p(after, before), False
        self.up, self.down = networks.p(after, 2), networks.p(2, before)

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.weight.data += (-1 if mode else 1) * self.up.data @ self.down.data
            self.merged = not mode
        return self

    def forward(self, x):
        return F.linear(x, self.weight if self.merged else self.weight + self.up @ self.down)


class Prepared(nn.Module):
    """Layer whose forward pass in evaluation mode needs an attribute that only `eval()` sets."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gain, self.fixed = nn.Linear(3, 6), nn.Linear(6, 2), networks.p(6), None

    def train(self, mode=True):
        super().train(mode)
        self.fixed = None if mode else torch.ones(2)
        return self

    def forward(self, x):
        h = self.a(x).relu() * self.gain
        return self.b(h) if self.training else self.b(h) * self.fixed.sum()


class Caching(nn.Module):
    """Module whose forward pass counts calls and stores activations."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.calls, self.last, self.seen, self.named = nn.Linear(3, 6), nn.Linear(6, 2), 0, None, [], {}

    def forward(self, x):
        h = self.a(x).relu()
        self.calls += 1
        self.last = h
        self.seen.append(h)
        self.named["h"] = h
        return self.b(h)


@pytest.mark.filterwarnings("ignore:the module branches on values")
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("make", [lambda: nn.Sequential(Adapter(3, 6), nn.ReLU(), Adapter(6, 2)), Prepared, Caching])
def test_the_module_stays_as_it_is(make, branches):
    torch.manual_seed(0)
    model = make()
    if branches:
        model = networks.Net(lambda m, x: m.inner(x) if float(x.sum()) > -1e9 else x, inner=model)
    part = model.inner if branches else model
    state = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = [dict(vars(module)) for module in model.modules()]
    spec = PermutationSpec.from_module(model, torch.randn(4, 3))
    assert 6 in spec.sizes.values()
    assert equal(model.state_dict(), state)
    assert model.training
    for module, before in zip(model.modules(), attributes, strict=True):
        assert vars(module) == before
    if isinstance(part, Caching):
        assert (part.calls, part.last, part.seen, part.named) == (0, None, [], {})
    if isinstance(part, nn.Sequential):
        assert not spec.idle
        group = next(group for group, size in spec.sizes.items() if size == 6)
        assert [(key[-4:], axis) for key, axis in spec.uses(group)].count(("0.up", 0)) == 1


@pytest.mark.parametrize("name", some(["GPT2", "Llama"]))
def test_caches_of_transformers_are_left_out(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "GPT2":
        config = transformers.GPT2Config(vocab_size=50, n_embd=12, n_layer=1, n_head=3, n_positions=16)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=20, num_hidden_layers=1,
                                          num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    ids = torch.randint(0, 50, (2, 7))
    spec = PermutationSpec.from_module(model, {"input_ids": ids})
    chosen = PermutationSpec.from_module(model, {"input_ids": ids}, outputs=lambda out: out.logits, verify=False)
    assert spec.sizes == chosen.sizes
    assert len(spec.sizes) > 3
    assert "is a cache and was left out" in spec.summary().splitlines()[0]


def test_other_objects_in_the_output_are_refused_with_a_remedy():
    class Box:
        def __init__(self, value):
            self.value = value

    model = networks.Net(lambda m, x: {"y": m.b(m.a(x)), "box": Box(m.a(x))}, a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    with pytest.raises(InputError, match=r"the output holds a Box.*select the tensors of its output with outputs="):
        PermutationSpec.from_module(model, torch.randn(2, 3))
    assert PermutationSpec.from_module(model, torch.randn(2, 3), outputs=lambda out: out["y"]).sizes == {"a": 6}


def test_what_is_written_moves_with_the_buffer_and_hidden_state_stays():
    def forward(m, x):
        h = m.a(x).relu()
        m.state.copy_(h.detach().mean(0))
        return m.b(h + m.state)

    for persistent in (True, False):
        model = networks.Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2))
        model.register_buffer("state", torch.zeros(6), persistent=persistent)
        spec = PermutationSpec.from_module(model, torch.randn(4, 3))
        assert list(spec.sizes.values()) == ([6] if persistent else [])
        assert torch.equal(model.state, torch.zeros(6))
