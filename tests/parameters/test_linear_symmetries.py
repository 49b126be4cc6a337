"""Linear symmetries: expected kinds, soundness, and networks that must not have them."""

import pytest
import torch
from networks import CASES, Net
from torch import nn

from commutant.parameters import Permutation, PermutationSpec, _linear_symmetries, act_linearly, part_rows
from depth import some

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def kinds(model, *x):
    return PermutationSpec.from_module(model, x or (X,)).kinds


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        (nn.ReLU(), "scaled permutation"),
        (nn.LeakyReLU(0.1), "scaled permutation"),
        (nn.Tanh(), "signed permutation"),
        (nn.Softsign(), "signed permutation"),
        (nn.GELU(), "permutation"),
        (nn.Sigmoid(), "permutation"),
        (nn.Softmax(-1), "permutation"),
        (nn.Identity(), "general linear"),
        (nn.RMSNorm(6), "orthogonal"),
        (nn.LayerNorm(6), "monomial"),  # its gain and shift by any number, and what reads them
    ],
)
def test_the_activation_decides(activation, kind):
    torch.manual_seed(0)
    assert kinds(nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 2)))["0"].name == kind


def test_a_square_scales_with_its_square():
    model = Net(lambda m, x: m.b(m.a(x).square()), a=nn.Linear(4, 6), b=nn.Linear(6, 2))
    (scale,) = kinds(model)["a"].scales
    assert scale["a.weight", 0, 0] == scale["a.bias", 0, 0]
    assert abs(scale["a.weight", 0, 0]) == 1
    assert scale["b.weight", 1, 0] == -2 * scale["a.weight", 0, 0]


def test_gates_scale_on_the_linear_side_alone():
    model = Net(
        lambda m, x: m.down(nn.functional.silu(m.gate(x)) * m.up(x)),
        gate=nn.Linear(4, 6), up=nn.Linear(4, 6), down=nn.Linear(6, 2),
    )  # fmt: skip
    kind = kinds(model)["gate"]
    (scale,) = kind.scales
    assert {part[0] for part in scale} == {"up.weight", "up.bias", "down.weight"}
    assert kind.name == "monomial"


def test_attention_is_general_linear_inside_each_head():
    model, inputs = CASES["gpt_tied"].build()
    found = kinds(model, *inputs)
    for group in ("blocks.0.qkv[1]", "blocks.0.qkv[2]"):
        assert found[group].name == "general linear"
        (frame,) = found[group].frames
        assert sorted(set(frame.values())) == [-1, 1]


def test_gains_that_differ_keep_a_stream_from_rotating():
    model = nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 2))
    assert kinds(model)["0"].rotations
    model[1].weight.data.uniform_(0.5, 2)
    kind = kinds(model)["0"]
    assert kind.name == "monomial"
    assert not kind.rotations


@pytest.mark.filterwarnings("ignore:the module branches on values")
@pytest.mark.parametrize("name", some(CASES, keep=12))
def test_what_is_found_leaves_every_network_alone(name):
    """Check symmetries at the model's own parameters and on another input, not where they were found."""
    torch.manual_seed(2)
    model, inputs = CASES[name].build()
    model = model.double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    spec = PermutationSpec.from_module(model, inputs)
    generator = torch.Generator().manual_seed(5)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    other = tuple(x + 0.1 if x.is_floating_point() else x for x in inputs)
    if name == "branches_on_data":  # the symmetries hold on the path of the example
        other = inputs

    def compute(state):
        found = torch.func.functional_call(model, state, other, tie_weights=False)
        return found if isinstance(found, torch.Tensor) else torch.cat([f.flatten() for f in found if f is not None])

    before = compute(state)

    def unchanged(group, maps):
        torch.testing.assert_close(compute(act_linearly(spec, state, group, maps)), before, rtol=1e-7, atol=1e-8)

    for group, kind in spec.kinds.items():
        *parents, size = spec.shape(group)
        outer = int(torch.Size(parents).numel())
        for scale in kind.scales:
            log = torch.randn(outer, size, generator=generator, dtype=torch.float64) * 0.3
            unchanged(group, {part: (power * log).exp().diag_embed() for part, power in scale.items()})
        for parts in kind.signs:
            flips = 1 - 2 * torch.randint(0, 2, (outer, size), generator=generator).double()
            unchanged(group, dict.fromkeys(parts, flips.diag_embed()))
        for frame in kind.frames:
            matrix = (torch.eye(size) + 0.1 * torch.randn(outer, size, size, generator=generator)).double()
            unchanged(group, {p: matrix if power > 0 else torch.linalg.inv(matrix).mT for p, power in frame.items()})
        if kind.rotations:
            turn = torch.linalg.qr(torch.randn(outer, size, size, generator=generator, dtype=torch.float64)).Q
            unchanged(group, dict.fromkeys(kind.rotations, turn))


def test_matrices_of_permutations_act_as_the_permutation():
    model, inputs = CASES["gpt_tied"].build()
    spec = PermutationSpec.from_module(model, inputs)
    group = "blocks.0.qkv[1]"
    table = torch.rand(spec.shape(group)).argsort(-1)
    moved = Permutation(spec, {group: table}).apply(model.state_dict())
    parts = [p for frame in spec.kinds[group].frames for p in frame]
    matrix = nn.functional.one_hot(table, table.shape[-1]).double()
    acted = act_linearly(spec, model.state_dict(), group, dict.fromkeys(parts, matrix))
    for part in parts:
        torch.testing.assert_close(
            part_rows(spec, acted[part[0]], part, group), part_rows(spec, moved[part[0]], part, group)
        )
    assert acted["head.weight"] is acted["embed.weight"]


def test_nothing_is_claimed_without_values_or_by_hand():
    def make():
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    by_hand = PermutationSpec.from_axes({"0.bias": ("h",)}, make().state_dict())
    unverified = PermutationSpec.from_module(make(), X, verify=False)
    on_meta = PermutationSpec.from_module(make().to("meta"), X.to("meta"))
    for spec in (by_hand, unverified, on_meta):
        assert {kind.name for kind in spec.kinds.values()} == {"permutation"}
    assert "scaled permutation" in PermutationSpec.from_module(make(), X).summary()


@pytest.mark.parametrize(
    ("bend", "x"),
    [
        (nn.ReLU6(), X),
        (lambda h: h.clamp(-50, 50), X),
        (lambda h: torch.where(h > 50, torch.sigmoid(h), h), X),
        (nn.GELU(), X * 1e4),
        (nn.Hardswish(), X * 1e3),
        (lambda h: torch.where(torch.arange(6) == 0, torch.full_like(h, -1e9), nn.functional.gelu(h)), X),
    ],
)
def test_what_holds_in_the_range_of_the_example_only_is_not_claimed(bend, x):
    model = Net(lambda m, x: m.b(bend(m.a(x))), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    for kind in kinds(model, x).values():
        assert kind.name in ("permutation", "signed permutation")


def test_a_constant_in_the_output_hides_nothing():
    def masked(m, x):
        y = m.b(nn.functional.gelu(m.a(x)))
        return torch.where(torch.arange(3) == 0, torch.full_like(y, -1e9), y)

    assert kinds(Net(masked, a=nn.Linear(4, 6), b=nn.Linear(6, 3)))["a"].name == "permutation"


def test_what_hardly_matters_is_not_judged():
    layers = [layer for _ in range(40) for layer in (nn.Linear(8, 8), nn.ReLU())]
    torch.manual_seed(0)
    found = kinds(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *layers, nn.Linear(8, 2)))
    assert not any(kind.signs for kind in found.values())


class Experts(nn.Module):
    """Experts of which an example visits some."""

    def __init__(self):
        super().__init__()
        self.into, self.norm, self.router, self.head = nn.Linear(4, 8), nn.RMSNorm(8), nn.Linear(8, 6), nn.Linear(8, 3)
        self.up, self.down = (nn.ModuleList(nn.Linear(8, 8) for _ in range(6)) for _ in range(2))

    def forward(self, x):
        h = self.norm(self.into(x))
        scores = self.router(h).softmax(-1)
        gates = torch.where(scores == scores.amax(-1, keepdim=True), scores, torch.zeros_like(scores))
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            h = h + gates[:, i : i + 1] * down(torch.relu(up(h)))
        return self.head(h)


def test_weights_that_the_example_leaves_idle_keep_their_group_at_permutations():
    torch.manual_seed(0)
    model = Experts()
    few, many = X[:2], torch.randn(400, 4, generator=torch.Generator().manual_seed(1)) * 20
    found = kinds(model, few)
    with torch.no_grad():
        visited = model.router(model.norm(model.into(few))).argmax(1).tolist()
    assert len(set(visited)) < 6
    stream = next(kind for group, kind in found.items() if PermutationSpec.from_module(model, few).sizes[group] == 8)
    assert stream.name == "permutation"
    state = {k: v.detach().double() for k, v in model.state_dict().items()}
    spec = PermutationSpec.from_module(model, few)
    for group, kind in spec.kinds.items():
        for scale in kind.scales:
            maps = {p: (power * torch.linspace(-1, 1, spec.sizes[group]).double()).exp().diag_embed()[None]
                    for p, power in scale.items()}  # fmt: skip
            moved = act_linearly(spec, state, group, maps)
            before, after = (torch.func.functional_call(model.double(), s, (many.double(),)) for s in (state, moved))
            torch.testing.assert_close(after, before)


def test_every_example_counts():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.a(x)
            return self.b(torch.sigmoid(h) if x.shape[0] > 4 else h)

    assert PermutationSpec.from_module(Branches(), X[:3]).kinds["a"].name == "general linear"
    both = PermutationSpec.from_module(Branches(), X[:3], also=[torch.randn(7, 4)])
    assert both.kinds["a"].name == "permutation"


def test_derivatives_are_taken_where_the_user_switched_them_off():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        assert kinds(model)["0"].name == "scaled permutation"
    with torch.inference_mode():
        assert kinds(nn.Sequential(*model), X.clone())["0"].name == "scaled permutation"


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_biases_turn_with_their_stream(constant):
    model = nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 2))
    nn.init.constant_(model[0].bias, constant)
    assert {part[0] for part in kinds(model)["0"].rotations} == {"0.weight", "0.bias", "2.weight"}


def test_one_gate_of_an_lstm_may_change_sign():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    kind = kinds(Last(), torch.randn(3, 6, 4))["rnn"]
    assert kind.name == "signed permutation"
    (parts,) = kind.signs
    assert ("rnn.weight_ih_l0", 0, 2) in parts
    assert ("rnn.weight_ih_l0", 0, 0) not in parts


def test_running_variances_scale_almost_but_not_quite():
    model = nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 2, 1)).eval()
    model[1].running_var.fill_(1e4)
    kind = kinds(model, torch.randn(3, 2, 9))["0"]
    assert len(kind.scales) == 2
    assert not any("running_var" in part[0] for scale in kind.scales for part in scale)


def relative_positions(m, i):
    """Build scores between contents, from contents to positions and back, with shared projections."""
    q, k, v = (h.view(2, 5, 2, 2).transpose(1, 2) for h in (m.q(i), m.k(i), m.v(i)))
    key, query = (h.view(5, 2, 2).transpose(0, 1) for h in (m.k(m.places), m.q(m.places)))
    scores = q @ k.mT + q @ key.mT + (k @ query.mT).mT
    return m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_signs_of_shared_projections_hold():
    torch.manual_seed(0)
    parts = {name: nn.Linear(4, 4) for name in ("q", "k", "v")}
    model = Net(relative_positions, **parts, out=nn.Linear(4, 2), places=nn.Parameter(torch.randn(5, 4))).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    spec = PermutationSpec.from_module(model, x)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    before = model(x)
    for group, kind in spec.kinds.items():
        *parents, size = spec.shape(group)
        outer = int(torch.Size(parents).numel())
        for parts in kind.signs:
            for channel in range(outer * size):
                flips = torch.ones(outer * size, dtype=torch.float64)
                flips[channel] = -1
                moved = act_linearly(spec, state, group, dict.fromkeys(parts, flips.view(outer, size)))
                torch.testing.assert_close(torch.func.functional_call(model, moved, (x,)), before)


def test_two_wrong_changes_do_not_stand_in_for_each_other(monkeypatch):
    """Propose two wrong changes that undo each other: each alone must be refuted."""
    part = ("0.weight", 0, 0)
    flip = torch.tensor([[-1.0, 1, 1, 1, 1, 1]]).double()
    wrong = _linear_symmetries._Proposal("0", "signs", frozenset({part}), lambda _: {part: flip})
    monkeypatch.setattr(_linear_symmetries._Search, "_proposals", lambda *_: [wrong, wrong])
    assert kinds(nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)))["0"].name == "permutation"
