"""Diagnosis compared with training: healthy networks train, others do not, and recommended remedies work."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant._errors import InputError
from commutant.theory import autoscale_, critical_, diagnose
from depth import chosen, some


def plain(activation, depth, width=64):
    layers = [m for i in range(depth) for m in (nn.Linear(16 if i == 0 else width, width), activation())]
    return nn.Sequential(*layers[:-2], nn.Linear(width, 1))


def normed(depth, width=64):
    layers = [m for _ in range(depth - 1) for m in (nn.LazyLinear(width), nn.BatchNorm1d(width), nn.ReLU())]
    net = nn.Sequential(*layers, nn.LazyLinear(1))
    net(torch.randn(8, 16))
    return net


def weight_normed(depth, normalize):
    net = plain(nn.ReLU, depth)
    for layer in net[::2]:
        normalize(layer)
    return net


class Block(nn.Module):
    def __init__(self, width, start):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.alpha = nn.Parameter(torch.tensor(0.0 if start == "alpha" else 1.0))
        if start == "norm":
            nn.init.zeros_(self.layers[3].weight)
        elif start == "layer":
            self.layers[3] = nn.Identity()
            nn.init.zeros_(self.layers[2].weight)
            nn.init.zeros_(self.layers[2].bias)

    def forward(self, x):
        return x + self.alpha * self.layers(x)


def residual(start, depth=20):
    return nn.Sequential(nn.Linear(16, 64), *[Block(64, start) for _ in range(depth)], nn.Linear(64, 1))


class UNet(nn.Module):
    def __init__(self, widths=(8, 16, 32)):
        super().__init__()
        inputs = (3, *widths[:-1])
        self.down = nn.ModuleList([self.pair(i, o) for i, o in zip(inputs, widths, strict=True)])
        self.up = nn.ModuleList([self.pair(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)])
        self.head = nn.Conv2d(widths[0], 1, 1)

    @staticmethod
    def pair(i, o):
        return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU())

    def forward(self, x):
        kept = []
        for down in self.down:
            kept.append(down(x))
            x = F.max_pool2d(kept[-1], 2)
        x = kept.pop()
        for up in self.up:
            x = up(torch.cat([F.interpolate(x, scale_factor=2), kept.pop()], 1))
        return self.head(x)


class Last(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.rnn, self.head = nn.LSTM(16, 32, layers, batch_first=True), nn.Linear(32, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def selu(depth):
    net = plain(nn.SELU, depth)
    for layer in net[::2]:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    return net


def zero_head():
    net = plain(nn.ReLU, 4)
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return net


HEALTHY = {
    "tanh": lambda: plain(nn.Tanh, 10),
    "ReLU": lambda: plain(nn.ReLU, 6),
    "SELU": lambda: selu(50),
    "SELU in torch's initialization": lambda: plain(nn.SELU, 10),
    "ReZero": lambda: residual("alpha"),
    "zero normalization at branch ends": lambda: residual("norm"),
    "zero layer at branch ends": lambda: residual("layer"),
    "zero head": zero_head,
    "U-Net": UNet,
    "batch normalization": lambda: normed(20),
    "weight normalization": lambda: weight_normed(5, nn.utils.parametrizations.weight_norm),
    "LSTM": lambda: Last(1),
}
ILL = {
    "tanh": lambda: plain(nn.Tanh, 50),
    "ReLU": lambda: plain(nn.ReLU, 50),
    "GELU": lambda: plain(nn.GELU, 20),
    "sigmoid": lambda: plain(nn.Sigmoid, 20),
    "weight normalization": lambda: weight_normed(30, nn.utils.parametrizations.weight_norm),
    "everything zero": lambda: zeroed(plain(nn.Tanh, 4)),
}


def zeroed(net):
    for p in net.parameters():
        nn.init.zeros_(p)
    return net


def batch(net):
    if isinstance(net, UNet):
        x = torch.randn(8, 3, 16, 16)
        return x, (x[:, :1].roll(1, 2) * x[:, 1:2])
    if isinstance(net, Last):
        x = torch.randn(32, 10, 16)
        return x, 3 * x[:, -3:, :4].mean((1, 2))[:, None]
    x = torch.randn(64, 16)
    return x, torch.sin(x[:, :8].sum(1, keepdim=True))


def loss_after(net, x, y, steps=150):
    """Return the share of variance left after steps of Adam, or once half is gone, at the better rate."""
    left = []
    for rate in (3e-3, 3e-4):
        trained = copy.deepcopy(net).train()
        optimizer = torch.optim.Adam(trained.parameters(), lr=rate)
        losses = []
        for _ in range(steps):
            loss = F.mse_loss(trained(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if len(losses) >= 5 and sum(losses[-5:]) / 5 < 0.5 * float(y.var()):
                return 0.5
        left.append(sum(losses[-5:]) / 5 / float(y.var()))
    return min(left)


@pytest.mark.parametrize(
    "case", chosen(HEALTHY, ["ReLU", "ReZero", "zero head", "U-Net", "weight normalization", "LSTM"])
)
def test_what_is_called_healthy_trains(case):
    torch.manual_seed(0)
    net = HEALTHY[case]()
    x, y = batch(net)
    assert diagnose(net, x).healthy
    assert loss_after(net, x, y) < 0.6


@pytest.mark.parametrize("case", chosen(ILL, ["sigmoid", "everything zero"]))
def test_what_is_called_ill_does_not_train(case, deep):
    torch.manual_seed(0)
    net = ILL[case]()
    x, y = batch(net)
    assert not diagnose(net, x).healthy
    assert loss_after(net, x, y, steps=150 if deep else 75) > 0.8


@pytest.mark.parametrize("case", chosen(["tanh", "sigmoid", "GELU", "everything zero"], ["sigmoid", "everything zero"]))
def test_a_recommended_remedy_removes_the_finding(case):
    torch.manual_seed(0)
    net = ILL[case]()
    x, _ = batch(net)
    finding = next(f for f in diagnose(net, x).findings if f.what == "inputs look alike")
    if finding.remedy.startswith("critical_(model);"):
        critical_(net, generator=torch.Generator().manual_seed(7))
    else:
        assert finding.remedy.startswith("autoscale_(model, x);")
        autoscale_(net, x)
    assert finding.what not in [f.what for f in diagnose(net, x).findings]


@pytest.mark.parametrize("normalize", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_layers_under_weight_normalization_are_to_be_initialized_before(normalize, deep):
    torch.manual_seed(0)
    depth = 20 if deep else 14
    net, x = weight_normed(depth, normalize), torch.randn(32, 16)
    before = net(x)
    found = [f for f in diagnose(net, x).findings if f.severe]
    assert found
    assert all(f.remedy.startswith("critical_(model) before weight_norm is applied") for f in found)
    assert torch.equal(net(x), before)  # trials leave it alone
    net = plain(nn.ReLU, depth)
    critical_(net, generator=torch.Generator().manual_seed(7))
    for layer in net[::2]:
        normalize(layer)
    assert diagnose(net, x).healthy


def test_a_remedy_that_does_not_work_is_not_recommended(deep):
    torch.manual_seed(0)
    net = normed(50) if deep else normed(36, width=16)
    (finding,) = diagnose(net, torch.randn(64, 16), probes=4 if deep else 2).findings
    assert finding.what == "gradients explode"
    assert finding.remedy.startswith("neither critical_ nor autoscale_ removes this")


def test_a_model_that_cannot_be_copied():
    net = plain(nn.Tanh, 50)
    net.lock = (i for i in range(3))
    assert all("cannot be copied" in f.remedy for f in diagnose(net, torch.randn(8, 16)).findings)


class Cut(nn.Module):
    """Network with two layers before a detach, and one that only the second output reads."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head, self.aux = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 1), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu().detach()), self.aux(x)


def test_layers_without_a_gradient_are_named():
    found = [f for f in diagnose(Cut(), torch.randn(8, 16)).findings if f.what == "no gradient"]
    assert "the parameters of a, b (2 of 4 layers)" in found[0].sentence
    dead = plain(nn.ReLU, 6)
    nn.init.constant_(dead[4].bias, -50.0)
    found = [f for f in diagnose(dead, torch.randn(8, 16)).findings if f.what == "no gradient"]
    assert "the parameters of 0, 2, 4 (3 of 6 layers)" in found[0].sentence
    frozen = Cut()
    frozen.a.requires_grad_(False)
    frozen.b.requires_grad_(False)
    assert diagnose(frozen, torch.randn(8, 16)).healthy


def test_layers_behind_zeros_keep_their_zeros():
    net = residual("alpha", 3)
    before = copy.deepcopy(net.state_dict())
    assert diagnose(net, torch.randn(8, 16)).healthy
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("inputs", some([1, 2, 4], keep=2))
def test_tiny_batches_are_scaled_or_refused_for_what_they_are(inputs, deep):
    for seed in range(3 if deep else 1):
        torch.manual_seed(seed)
        autoscale_(plain(nn.Tanh, 10), torch.randn(inputs, 16))
        if inputs > 1:
            with pytest.raises(InputError, match=f"normalizes over {inputs} values of a channel"):
                autoscale_(normed(10), torch.randn(inputs, 16))
        autoscale_(normed(10).eval(), torch.randn(inputs, 16))


class Branch(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.act = layer, nn.Tanh()

    def forward(self, x):
        return x + self.layer(self.act(x))


def strong():
    layer = nn.Linear(32, 32)
    nn.init.normal_(layer.weight, std=0.5)
    return layer


def test_frozen_and_shared_ends_of_branches_are_left_alone():
    torch.manual_seed(0)
    shared, frozen = strong(), strong().requires_grad_(False)
    branches = [Branch(strong()), Branch(strong()), Branch(frozen), Branch(strong())]
    branches[0].layer.weight = branches[1].layer.weight = shared.weight
    net, x = nn.Sequential(nn.Linear(8, 32), *branches, nn.Linear(32, 1)), torch.randn(32, 8)
    before = copy.deepcopy(net.state_dict())
    done = {d.module for d in autoscale_(net, x)}
    assert done == {"0", "4.layer", "5"}
    for name in ("1.layer", "2.layer", "3.layer"):
        assert torch.equal(net.state_dict()[f"{name}.weight"], before[f"{name}.weight"])
        assert torch.equal(net.state_dict()[f"{name}.bias"], before[f"{name}.bias"])
