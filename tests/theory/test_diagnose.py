"""Diagnosis of networks with known problems, and remedies that work."""

import copy
import math

import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.sequences import parallel_rnn
from commutant.theory import (
    SNN,
    autoscale_,
    critical_,
    diagnose,
    lecun_normal_,
    moment_map,
    moment_report,
    param_groups,
    swap,
)
from depth import some


def plain(activation, depth=50, width=100):
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width), activation())][:-1])


class Residual(nn.Module):
    def __init__(self, channels, norm):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels) if norm else nn.Identity() for _ in range(2)])
        self.act = nn.ReLU(inplace=True)
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x):
        return self.act(x + self.norms[1](self.second(self.act(self.norms[0](self.first(x))))))


def resnet(blocks, *, norm):
    stem = nn.Conv2d(3, 16, 3, padding=1)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(stem, nn.Sequential(*[Residual(16, norm) for _ in range(blocks)]), *head)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def names(found):
    return [finding.what for finding in found.findings]


def test_a_plain_network_in_torchs_own_initialisation_is_ill_and_cured(deep):
    net, x = plain(nn.Tanh, depth=50 if deep else 24), torch.randn(32, 100)
    found = diagnose(net, x)
    assert names(found) == ["inputs look alike", "gradients vanish"]
    assert "critical_(model)" in str(found)
    gains = [layer.gain for layer in found.layers[5:]]
    assert sum(gains) / len(gains) == pytest.approx(1 / 3, rel=0.03)  # uniform in 1 / sqrt(fan-in)
    critical_(net, generator=torch.Generator().manual_seed(1))
    assert diagnose(net, x).healthy


@pytest.mark.parametrize("activation", some([nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU]))
def test_autoscale_brings_every_layer_to_unit_gain(activation):
    net, x = plain(activation, depth=20), torch.randn(64, 100)
    done = autoscale_(net, x)
    assert [d.role for d in done] == ["layer"] * 19 + ["output"]
    found = diagnose(net, x, probes=8)
    assert all(abs(layer.gain - 1) < 0.15 for layer in found.layers[1:-1])
    assert found.layers[-1].kernel == pytest.approx(1, rel=1e-4)
    if activation is not nn.GELU:  # whose signals drift without biases
        first, last = found.layers[0].gradient, found.layers[-2].gradient
        assert 1 / 30 < first / last < 30


def test_exploding_signals_are_told(deep):
    depth = 30 if deep else 16
    net = plain(nn.ReLU, depth=depth)
    for layer in net[::2]:
        nn.init.normal_(layer.weight, std=(8 / 100) ** 0.5)
        nn.init.zeros_(layer.bias)
    found = diagnose(net, torch.randn(16, 100))
    assert {"signals explode", "gradients explode"} <= set(names(found))
    growth = (found.layers[-1].kernel / found.layers[0].kernel) ** (1 / (depth - 1))
    assert growth == pytest.approx(4, rel=0.2)


def test_a_residual_network_with_batch_normalisation_is_in_order_and_left_as_it_was():
    net, x = resnet(6, norm=True), torch.randn(16, 3, 8, 8)
    before = copy.deepcopy(net.state_dict())
    found = diagnose(net, x)
    assert found.healthy
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    blocks = [s for s in found.stages if s.block]
    assert len(blocks) == 6
    assert all(0.3 < b.skip < 0.8 for b in blocks)  # the ReLU after the sum lets about half through
    assert "nothing wrong" in str(found)


def test_a_residual_network_without_normalisation_explodes_and_autoscale_weakens_its_branches(deep):
    net, x = resnet(20 if deep else 4, norm=False), torch.randn(8, 3, 8, 8)
    if not deep:  # few blocks explode where each does so faster
        for block in net[1]:
            block.second.weight.data *= 8
    assert "gradients explode" in names(diagnose(net, x))
    done = autoscale_(net, x)
    assert {d.role for d in done} == {"layer", "output", "branch"}
    assert all(d.module.endswith("second") for d in done if d.role == "branch")
    blocks = [s for s in diagnose(net, x).stages if s.block]
    assert math.prod(b.gain for b in blocks) < 1.3 * math.e


def test_the_end_of_a_normalised_branch_is_its_normalisation(deep):
    net, x = resnet(6 if deep else 3, norm=True), torch.randn(16, 3, 8, 8)
    done = autoscale_(net, x, growth=1.5)
    assert {d.module.rsplit(".", 2)[1] for d in done if d.role == "branch"} == {"norms"}


def test_a_transformer_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=4, n_embd=96, n_head=4, vocab_size=200)
    model = transformers.GPT2Model(config).eval()
    found = diagnose(model, {"input_ids": torch.randint(0, 200, (4, 16))})
    assert found.healthy
    blocks = [s for s in found.stages if s.block]
    assert [b.kind for b in blocks] == ["GPT2Block"] * 4
    assert all(b.skip == pytest.approx(1, abs=0.1) for b in blocks)
    assert any(s.name == "h.0.attn.c_attn" and s.gain == pytest.approx(96 * 0.02**2, rel=0.2) for s in found.stages)


@pytest.mark.deep
def test_a_block_of_gpt_2_in_its_size():
    layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, norm_first=True, activation="gelu")
    found = diagnose(layer, torch.randn(2, 16, 768), probes=2)
    assert found.healthy
    assert {"self_attn", "linear1", "linear2", "norm1"} <= {s.name for s in found.stages}


def test_nothing_is_left_behind():
    net, x = plain(nn.Tanh, depth=3), torch.randn(4, 100)
    net[0].weight.requires_grad_(False)
    diagnose(net, x)
    assert not net[0].weight.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert all(not m._forward_hooks for m in net.modules())
    assert x.grad is None


def test_inputs_that_are_not_standardized():
    found = diagnose(plain(nn.ReLU, depth=2), torch.rand(16, 100) * 255)
    assert names(found)[0] == "inputs not standardized"


def test_a_layer_that_gives_nan_is_named():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    found = diagnose(nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 1)), torch.randn(8, 4))
    assert names(found) == ["not finite"]
    assert "1 (Root)" in found.findings[0].sentence


def test_units_that_are_off_for_every_input():
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
    nn.init.constant_(net[0].bias, -50.0)
    assert "idle units" in names(diagnose(net, torch.randn(8, 4)))


def test_too_deep_for_its_width():
    net = plain(nn.ReLU, depth=40, width=30)
    critical_(net)
    found = diagnose(net, torch.randn(8, 30))
    assert "too deep for its width" in names(found)


def test_selu_without_its_recipe():
    net = nn.Sequential(nn.Linear(16, 32), nn.SELU(), nn.Dropout(0.5), nn.BatchNorm1d(32), nn.Linear(32, 1))
    (finding,) = [f for f in diagnose(net, torch.randn(16, 16)).findings if f.what == "SELU without its recipe"]
    for word in ("Dropout", "BatchNorm1d", "variance"):
        assert word in finding.sentence


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (nn.Linear(3, 2), torch.randn(0, 3), "at least one input"),
        (nn.Linear(3, 2), torch.full((2, 3), math.nan), "finite"),
        (nn.Linear(3, 2), torch.randn(2, 4), "fails on this input"),
        (nn.ReLU(), torch.randn(2, 4), "no layer with weights|no linear"),
        (nn.Linear(3, 2), "a string", "a tensor, a tuple"),
        (nn.Linear(3, 2), torch.zeros(2, 3, dtype=torch.int64), "fails on this input"),
        (nn.LazyLinear(2), torch.randn(2, 4), "one batch first"),
    ],
)
def test_bad_input_is_one_sentence(model, x, says):
    for function in (diagnose, autoscale_):
        with pytest.raises(InputError, match=says):
            function(model, x)


def test_a_layer_without_gain_cannot_be_scaled_and_nothing_is_changed():
    net = nn.Sequential(
        nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)
    )
    net[3].register_forward_hook(lambda *_: torch.zeros(8, 4, requires_grad=True))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError, match="gain"):
        autoscale_(net, torch.randn(8, 4))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_zero_and_frozen_layers_are_left_alone():
    net = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(8, 8), nn.Tanh())], nn.Linear(8, 2))
    nn.init.zeros_(net[8].weight)
    net[2].weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    assert [d.module for d in autoscale_(net, torch.randn(32, 8))] == ["0", "4", "6"]
    for name in ("2.weight", "2.bias", "8.weight"):
        assert torch.equal(net.state_dict()[name], before[name])


class Hidden(nn.Module):
    """Network with skips that no block contains."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 64), nn.Linear(64, 2)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(24))

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = x + layer(torch.relu(x))
        return self.last(x)


def test_skips_that_cannot_be_seen_are_refused_and_nothing_is_changed():
    net, x = Hidden(), torch.randn(32, 8)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError, match="skips that no block"):
        autoscale_(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(f.what == "too deep for its width" for f in diagnose(net, x).findings)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)
        nn.init.normal_(self.layer.weight, std=0.25)

    def forward(self, x):
        x += self.layer(torch.tanh(x))
        return x


def test_residual_blocks_that_work_in_place():
    net, x = nn.Sequential(nn.Linear(8, 64), *[InPlace() for _ in range(10)], nn.Linear(64, 2)), torch.randn(32, 8)
    blocks = [s for s in diagnose(net, x).stages if s.block]
    assert all(b.gain > 1.2 and b.skip == pytest.approx(1, abs=0.2) for b in blocks)
    autoscale_(net, x)
    assert math.prod(b.gain for b in diagnose(net, x).stages if b.block) < 1.3 * math.e


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.body(x)
        return self.head(x)


class Logarithm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x):
        return torch.tanh(self.layer(x)).log()


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.act = nn.Parameter(torch.randn(64, 64) / 2), nn.ReLU()

    def forward(self, x):
        return self.act(x @ self.weight)


class WithToken(nn.Module):
    """Network like a vision transformer, with a parameter next to blocks and blocks with parameters of their own."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.blocks = nn.ModuleList(Scaled(16) for _ in range(4))

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return x


class Scaled(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(width)), nn.Linear(width, width)

    def forward(self, x):
        return x + self.scale * self.layer(torch.relu(x))


def test_parameters_beside_blocks_hide_no_block():
    found = diagnose(WithToken(), torch.randn(8, 5, 16))
    assert [s.name for s in found.stages if s.block] == [f"blocks.{i}" for i in range(4)]
    assert [s.name for s in found.layers] == [f"blocks.{i}.layer" for i in range(4)]


def test_models_of_every_kind(deep):
    x = torch.randn(16, 8)
    diagnose(Frozen(), x)
    assert names(diagnose(Logarithm(), x)) == ["not finite"]
    exploding = nn.Sequential(*[Own() for _ in range(30 if deep else 12)], nn.Linear(64, 4))
    assert "gradients explode" in names(diagnose(exploding, torch.randn(16, 64)))
    diagnose(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 4)), x)
    for seed in range(10 if deep else 3):
        torch.manual_seed(seed)
        one_output = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        assert diagnose(one_output, x[:4]).healthy


def test_dropout_is_off_and_the_random_state_stays():
    layer, x = nn.TransformerEncoderLayer(32, 4, 64, 0.5, batch_first=True), torch.randn(8, 16, 32)
    state = torch.random.get_rng_state()
    one, two = (diagnose(layer, x).stages for _ in range(2))
    assert [s.kernel for s in one] == [s.kernel for s in two]
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(m.training for m in layer.modules())


def test_swap_keeps_shared_modules_shared():
    act = nn.ReLU()
    net = swap(nn.Sequential(nn.Linear(16, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 1)))
    assert type(net[1]).__name__ == "SELU"
    assert net[1] is net[3]


def test_tied_weights_are_left_alone():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    net[2].weight = net[0].weight
    before = net[0].weight.clone()
    assert [d.module for d in autoscale_(net, torch.randn(8, 8))] == ["4"]
    assert torch.equal(net[0].weight, before)


@pytest.mark.deep
def test_learning_rates_make_all_tensors_add_alike():
    net, x = plain(nn.Tanh, depth=20), torch.randn(64, 100)
    critical_(net)
    groups = param_groups(net, x, 0.1, probes=64)
    assert [len(g["params"]) for g in groups] == [1] * 40
    rates = {id(g["params"][0]): g["lr"] for g in groups}
    shares = {True: [], False: []}
    for _ in range(200):
        (grads,) = [torch.autograd.grad((net(x) @ torch.randn(100)).mean(), list(net.parameters()))]
        for p, g in zip(net.parameters(), grads, strict=True):
            shares[p.ndim == 2].append((id(p), float(g.square().sum())))
    biases = {}
    for key, value in shares[False]:
        biases[key] = biases.get(key, 0.0) + value * rates[key]
    assert max(biases.values()) / min(biases.values()) < 3
    assert max(rates[k] for k in biases) / min(rates[k] for k in biases) > 5
    torch.optim.SGD(groups, lr=0.1)


def test_rates_are_refused_far_off_criticality():
    with pytest.raises(InputError, match="criticality first"):
        param_groups(plain(nn.Tanh), torch.randn(8, 100), 0.1)


def test_moment_report_of_a_self_normalising_network():
    report = moment_report(SNN(64, 2, hidden=512, depth=16, dropout=0.05), torch.randn(256, 64))
    assert len(report.layers) == 16
    assert all(abs(m.mean) < 0.06 for m in report.layers)
    assert all(abs(m.variance - 1) < 0.2 for m in report.layers)
    assert all(abs(m.variance - m.predicted_variance) < 4 * m.tolerance for m in report.layers)
    assert report.warnings == ()


@pytest.mark.parametrize(("variance", "says"), [(2.0, "He initialization"), (0.5625, "gain 3/4")])
def test_moment_report_knows_the_wrong_initialisations(variance, says):
    net = nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(256, 256), nn.SELU())])
    for layer in net[::2]:
        nn.init.normal_(layer.weight, std=(variance / 256) ** 0.5)
        nn.init.zeros_(layer.bias)
    report = moment_report(net, torch.randn(512, 256))
    assert says in report.warnings[0]
    # The prediction from the layer before is right all the same.
    assert all(m.variance == pytest.approx(m.predicted_variance, rel=0.15) for m in report.layers[1:])
    assert says in str(report)


def test_moment_report_follows_any_activation():
    net = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(400, 400), nn.Tanh())])
    for layer in net[::2]:
        lecun_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    report = moment_report(net, torch.randn(256, 400))
    assert all(m.variance == pytest.approx(m.predicted_variance, rel=0.1) for m in report.layers)
    assert float(moment_map(0.0, 1.0, activation="tanh")[1]) == pytest.approx(
        report.layers[0].predicted_variance, rel=0.05
    )


def test_moment_report_follows_biases_and_names_them():
    torch.manual_seed(0)
    net = SNN(64, 2, hidden=512, depth=3, dropout=0.0)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.bias, 1.0)
    report = moment_report(net, torch.randn(512, 64))
    assert all(m.mean == pytest.approx(m.predicted_mean, abs=0.1) for m in report.layers)
    assert report.layers[0].mean > 0.8
    assert "biases have a mean square of 1" in report.warnings[0]


def test_moment_report_pairs_what_is_connected():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Linear(8, 256), nn.Linear(8, 256), nn.Tanh()

        def forward(self, x):
            u, v = self.a(x), self.b(x)
            return self.act(u) + v

    with pytest.raises(InputError, match="no linear layer followed"):
        moment_report(Crossed(), torch.randn(16, 8))


def test_swap_changes_activation_dropout_and_weights_together():
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5), nn.Sequential(nn.Linear(256, 256), nn.ReLU()))
    net.eval()
    swapped = swap(net, generator=torch.Generator().manual_seed(0))
    assert swapped is net
    assert [type(m).__name__ for m in net.modules() if not isinstance(m, nn.Sequential)] == [
        "Linear", "SELU", "AlphaDropout", "Linear", "SELU",
    ]  # fmt: skip
    assert net[2].p == 0.05
    assert not net[2].training
    assert moment_report(net, torch.randn(512, 64)).warnings == ()


@pytest.mark.parametrize(
    ("net", "what", "says"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "relu->gelu", "relu->selu"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "relu->selu", "no nn.ReLU"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU()), "relu->selu", "normalizes already"),
    ],
)
def test_swaps_that_make_no_sense(net, what, says):
    with pytest.raises(InputError, match=says):
        swap(net, what)


def test_layers_through_which_nothing_comes_are_listed_too():
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    nn.init.constant_(net[2].bias, -100.0)
    found = diagnose(net, torch.randn(16, 8))
    assert [stage.name for stage in found.layers] == ["0", "2", "4"]
    assert [stage.share for stage in found.layers[:2]] == [0, 0]
    assert "idle units" in [finding.what for finding in found.findings]


class Checkpointed(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        self.parts = nn.ModuleList([nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(3)])
        self.head, self.reentrant = nn.Linear(32, 4), reentrant

    def forward(self, x):
        for part in self.parts:
            if self.reentrant is None:
                x = part(x)
            else:
                x = torch.utils.checkpoint.checkpoint(part, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing(reentrant):
    x = torch.randn(16, 32)
    found, done = [], []
    for way in (None, reentrant):
        torch.manual_seed(0)
        model = Checkpointed(way).train()
        found.append(diagnose(model, x))
        done.append(autoscale_(model, x))
        model(x.clone().requires_grad_()).sum().backward()  # checkpointing is back
    assert repr(found[0].stages) == repr(found[1].stages)
    assert found[0].findings == found[1].findings
    assert done[0] == done[1]


def test_a_cell_that_the_backward_pass_calls_again_is_no_further_layer():
    model = nn.Sequential(nn.Linear(5, 3), parallel_rnn(nn.GRUCell(3, 4)))
    stages = diagnose(model, torch.randn(4, 12, 5, generator=torch.Generator().manual_seed(0))).stages
    assert {stage.kind for stage in stages} >= {"Linear", "GRUCell"}
