"""REPAIR: every layer, in the order in which the network runs them."""

import copy

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.weights import interpolate, repair


class Backwards(nn.Module):
    """Network whose layers are registered from the last to the first."""

    def __init__(self):
        super().__init__()
        self.c, self.b, self.a = nn.Linear(16, 3), nn.Linear(16, 16, bias=False), nn.Linear(4, 16)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Attending(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.head, self.up = nn.Linear(8, 3), nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.memory = "kdim" in options

    def forward(self, x):
        h = self.up(x)
        memory = x[:, :3] if self.memory else h[:, :4]
        return self.head(self.layer(h + self.attention(h, memory, memory)[0]))


def merged(make):
    a, b = make().eval(), make().eval()
    middle = copy.deepcopy(a)
    middle.load_state_dict(interpolate([a, b]))
    return a, b, middle


def spreads(network, names, x):
    found = {}

    def keep(name):
        def hook(module, args, out):
            out = out[0] if isinstance(out, tuple) else out
            found[name] = out.detach().flatten(0, -2).double().std(0, correction=0)

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    network.eval()(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("make", "names", "shape"),
    [
        (Backwards, ("a", "b", "c"), (200, 4)),
        (Attending, ("up", "attention", "layer.linear1", "head"), (40, 5, 4)),
        (lambda: Attending(bias=False), ("up", "attention", "head"), (40, 5, 4)),
        (lambda: Attending(kdim=4, vdim=4), ("up", "attention", "head"), (40, 5, 4)),
        (
            lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            ("self_attn", "linear1", "linear2"),
            (40, 5, 4),
        ),
    ],
)
@pytest.mark.parametrize("add_biases", [True, False])
def test_every_layer_has_the_spread_of_its_parents(make, names, shape, add_biases):
    a, b, middle = merged(make)
    x = torch.randn(*shape)
    found = repair(middle, [a, b], [x[: len(x) // 2], x[len(x) // 2 :]], add_biases=add_biases)
    first, second, own, before = (spreads(m, names, x) for m in (a, b, found, middle))
    for name in names:
        goal = (first[name] + second[name]) / 2
        torch.testing.assert_close(own[name], goal, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(before[name], goal, rtol=0.1)
    if add_biases:
        assert all(torch.equal(v, middle.state_dict()[k]) for k, v in copy.deepcopy(middle).state_dict().items())
    else:
        make().load_state_dict(found.state_dict())


def test_repair_is_the_same_in_any_unit():
    a, b, middle = merged(Backwards)
    x = torch.randn(100, 4)
    wanted = repair(middle, [a, b], [x])
    for network in (a, b, middle):
        with torch.no_grad():
            network.a.weight.mul_(1e-15)
            network.a.bias.mul_(1e-15)
    found = repair(middle, [a, b], [x])
    torch.testing.assert_close(found.a.weight * 1e15, wanted.a.weight, rtol=1e-3, atol=1e-5)


def test_what_repair_can_not_do_is_said():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x):
            for _ in range(4):
                x = torch.tanh(self.a(3 * x))
            return x

    a, b, middle = merged(Loop)
    with pytest.warns(UserWarning, match="as happens in layers that read their own output"):
        repair(middle, [a, b], [torch.randn(50, 6)])
    a, b, middle = merged(Backwards)
    with pytest.raises(InputError, match="'a' returns NaN or infinities"):
        repair(middle, [a, b], [torch.full((3, 4), torch.nan)])
