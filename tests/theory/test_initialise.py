"""Critical initialization in place: traced activations, drawn variances, and signals that keep their size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant import InputError
from commutant.theory import SELU, activations_before, critical_, swap
from depth import some


def deep(act, depth=50, width=256):
    layers = [nn.Linear(64, width)]
    for _ in range(depth - 1):
        layers += [act(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("act", some([nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Mish, lambda: nn.LeakyReLU(0.3)], keep=3))
def test_signals_and_gradients_survive_fifty_layers(act):
    net = deep(act)
    critical_(net, generator=torch.Generator().manual_seed(0))
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = net(x)
    assert 3e-3 < float(out.detach().var()) < 200
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (grad,) = torch.autograd.grad((out * probe).sum(), x)
    assert 5e-3 < float(grad.square().mean()) / 4 < 200  # 256 outputs to 64 inputs


class Functional(nn.Module):
    """Convolutional residual network with functional activations and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.after = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.branch(F.leaky_relu(x, 0.1))
        x = self.after(self.norm(x))
        return self.head(F.dropout(x.relu().mean((2, 3)), 0.1, self.training))


def test_functional_activations_are_found_through_reshaping_and_additions():
    found = activations_before(Functional())
    assert {name: act and act.name for name, act in found.items()} == {
        "stem": None, "branch": "leaky_relu", "after": None, "head": "relu",
    }  # fmt: skip
    assert found["branch"].slopes == pytest.approx((0.1, 1.0))
    done = critical_(Functional(), generator=torch.Generator().manual_seed(0))
    assert [round(d.weight_variance, 6) for d in done] == [1.0, round(2 / 1.01, 6), 1.0, 2.0]


def test_variances_are_those_of_fan_in_and_half_stable_kernels():
    net = nn.Sequential(nn.Conv2d(4, 512, 3), nn.GELU(), nn.Conv2d(512, 512, 3), nn.GELU(), nn.Linear(64, 7))
    done = critical_(net, generator=torch.Generator().manual_seed(0))
    assert done[1].std == pytest.approx((1.98305826 / (512 * 9)) ** 0.5, rel=1e-6)
    weights = net[2].weight.detach()
    assert float(weights.std()) == pytest.approx(done[1].std, rel=0.01)
    assert float(net[2].bias.detach().var()) == pytest.approx(0.17292239, rel=0.2)
    assert done[0].bias_variance + done[0].weight_variance == pytest.approx(3.5615528)
    again = critical_(net, generator=torch.Generator().manual_seed(0))
    assert done == again
    assert torch.equal(weights, net[2].weight.detach())


def test_a_skip_takes_its_share_and_an_activation_may_be_said():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    assert [d.weight_variance for d in critical_(net, gamma=0.6)] == pytest.approx([1.0, 2 * 0.64])
    assert [d.after for d in critical_(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), activation="tanh")] == [
        None, "tanh",
    ]  # fmt: skip
    critical_(nn.Sequential(nn.Linear(4, 4), SELU(), nn.Linear(4, 4)))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)

    def forward(self, x):
        return self.a(torch.tanh(x) + torch.relu(x))


def test_what_is_refused():
    with pytest.raises(InputError, match="can't be traced"):
        critical_(Branching())
    with pytest.raises(InputError, match="several activations"):
        critical_(Two())
    with pytest.raises(InputError, match="no critical point"):
        critical_(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2)))
    with pytest.raises(InputError, match="no linear or convolutional layer"):
        critical_(nn.ReLU())
    with pytest.raises(InputError, match="must lie in"):
        critical_(nn.Linear(2, 2), gamma=1.0)


class Between(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(4, 4), nn.Linear(4, 4), function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda z: torch.clamp(z, 0), "clamp is not a known activation"),
        (nn.functional.logsigmoid, "not a known activation"),
        (lambda z: torch.tanh(torch.relu(z)), "several activations: tanh, relu"),
    ],
)
def test_what_stands_between_layers_is_known_or_refused(function, says):
    with pytest.raises(InputError, match=says):
        critical_(Between(function))


@pytest.mark.parametrize(
    "function",
    [
        lambda z: nn.functional.relu(input=z),
        lambda z: nn.functional.relu(z) * 2,
        lambda z: nn.functional.max_pool1d(torch.relu(z), 1),
    ],
)
def test_one_activation_by_any_route(function):
    assert [done.after for done in critical_(Between(function))] == [None, "relu"]


def test_lazy_layers_must_have_seen_a_batch():
    with pytest.raises(InputError, match="one batch first"):
        critical_(nn.Sequential(nn.LazyLinear(3)))


class Mine(nn.Linear):
    pass


def test_layers_of_ones_own_count_and_computed_weights_are_refused():
    done = critical_(nn.Sequential(Mine(8, 64), nn.ReLU(), Mine(64, 1)))
    assert [(d.layer, d.after) for d in done] == [("0", None), ("2", "relu")]
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    with pytest.raises(InputError, match="computed from others"):
        critical_(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), normed))


def test_gates_are_no_activations():
    with pytest.raises(InputError, match="multiplies two values"):
        critical_(Between(lambda z: torch.sigmoid(z) * z))


@pytest.mark.parametrize(
    "part",
    [
        nn.GLU(),
        nn.Softmax(-1),
        nn.LSTM(8, 8),
        nn.MultiheadAttention(8, 2),
        nn.Bilinear(8, 8, 8),
        nn.ConvTranspose1d(8, 8, 3),
        nn.TransformerEncoderLayer(8, 2, 8),
        nn.LocalResponseNorm(2),
        nn.CosineSimilarity(),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_part_that_is_not_known_is_named_before_anything_is_changed(part):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.part, self.last = nn.Linear(8, 8), part, nn.Linear(8, 8)

        def forward(self, x):
            return self.last(self.part(self.first(x)))

    net = Net()
    kept = [p.clone() for p in net.parameters()]
    with pytest.raises(InputError, match=type(part).__name__):
        critical_(net)
    assert all(torch.equal(p, k) for p, k in zip(net.parameters(), kept, strict=True))


@pytest.mark.parametrize("part", [nn.InstanceNorm1d(8), nn.SyncBatchNorm(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)])
def test_a_layer_after_normalisation_reads_unit_variance(part):
    done = critical_(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), part, nn.Linear(8, 8)))
    assert [d.after for d in done] == [None, None]
    assert done[-1].weight_variance == 1.0


def test_a_function_that_normalises_is_as_the_module():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.last(nn.functional.layer_norm(torch.relu(self.first(x)), (8,)))

    assert [d.after for d in critical_(Net())] == [None, None]


def test_a_transformer_is_refused_and_not_initialised_in_part():
    net = nn.Sequential(
        nn.Linear(8, 16),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 3),
        nn.Linear(16, 2),
    )
    for options in ({}, {"activation": "relu"}):
        with pytest.raises(InputError, match=r"TransformerEncoder|MultiheadAttention"):
            critical_(net, **options)


def test_shared_weights_are_named():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(torch.tanh(self.embed(ids)))

    for options in ({}, {"activation": "gelu"}):
        with pytest.raises(InputError, match=r"embed\.weight and head\.weight are one weight"):
            critical_(Tied(), **options)


def test_gpt2_is_refused_with_its_layers_named():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    kept = [p.clone() for p in model.parameters()]
    with pytest.raises(InputError, match="are one weight"):
        critical_(model, activation="gelu")
    with pytest.raises(InputError, match=r"Conv1D\) has weights for which no critical point is known"):
        critical_(transformers.GPT2ForSequenceClassification(config), activation="gelu")
    assert all(torch.equal(p, k) for p, k in zip(model.parameters(), kept, strict=True))


def test_frozen_layers_keep_their_weights():
    def net():
        made = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        made[2].requires_grad_(False)
        made[4].bias.data.fill_(3.0)
        made[4].bias.requires_grad_(False)
        return made

    for change in (critical_, swap):
        model = net()
        kept = model[2].weight.clone(), model[2].bias.clone()
        done = change(model)
        assert torch.equal(model[2].weight, kept[0])
        assert torch.equal(model[2].bias, kept[1])
        assert bool((model[4].bias == 3).all())
        if change is critical_:
            assert [d.layer for d in done] == ["0", "4"]


class Scaled(nn.Module):
    """Network with a function between two layers."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(256, 256), nn.Linear(256, 256), function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda z: 10 * torch.tanh(z), 10),
        (lambda z: torch.tanh(z) / 4, 0.25),
        (lambda z: 1.7159 * torch.tanh(2 / 3 * z), 1.7159 * 2 / 3),
        (lambda z: torch.sin(30 * z), 30),
    ],
)
def test_a_scaled_activation_is_scaled(function, slope):
    assert critical_(Scaled(function))[1].weight_variance == pytest.approx(slope**-2, rel=1e-4)
    relu = critical_(Scaled(lambda z: torch.relu(z * 3) / 2))[1]
    assert relu.weight_variance == pytest.approx(2 / 1.5**2)


def test_a_layer_that_reads_two_activations_in_two_calls_is_refused():
    class Shared(nn.Module):
        def __init__(self, second):
            super().__init__()
            self.layer, self.second = nn.Linear(8, 8), second

        def forward(self, x):
            return self.layer(self.second(self.layer(torch.relu(self.layer(x)))))

    with pytest.raises(InputError, match="several activations"):
        critical_(Shared(torch.tanh))
    assert [done.after for done in critical_(Shared(torch.relu))] == ["relu"]
