"""Networks whose widths existing tools can't cut, or cut wrongly, for the tests of sorted networks."""

import torch
import torch.nn.functional as F
from torch import nn


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 32), nn.Linear(16, 3)

    def forward(self, x):
        u, v = self.a(x).chunk(2, -1)
        return self.b(u * v.sigmoid())


class Attention(nn.Module):
    """Heads are a number in an attribute; with fewer heads the view also fits, but mixes channels."""

    def __init__(self, width=24, heads=4):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(batch, length, -1))


class FixedHeads(Attention):
    """The number of heads is written into the code: fewer heads run, and compute something else."""

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(batch, length, -1))


class Dimensioned(Attention):
    """Two attributes must follow: the number of heads and the width of all heads."""

    def __init__(self, width=24, heads=4):
        super().__init__(width, heads)
        self.width = width

    def forward(self, x):
        batch, length, _ = x.shape
        size = self.width // self.heads
        q, k, v = (z.view(batch, length, self.heads, size).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(batch, length, self.width))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.GRU, layers=2):
        super().__init__()
        self.rnn, self.out = kind(5, 12, layers, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class Tied(nn.Module):
    """Residual stream through layer norms, whose embedding is the head too."""

    def __init__(self, width=12):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(20, width), nn.Linear(width, 18), nn.Linear(18, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.head(self.norm(x + self.down(F.gelu(self.up(self.norm(x))))))


class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())


class Deep(nn.Module):
    """Blocks in a list, with a shared norm and head."""

    def __init__(self, inputs=6, width=8, hidden=16, blocks=4, classes=3):
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Joined(nn.Module):
    """Two branches are concatenated in front of a batch norm, so that its first channels are not contiguous."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(10)
        self.out = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        return self.out(self.norm(torch.cat([self.a(x), self.b(x)], 1)).relu())


def unflattened():
    """Attributes that are tuples must follow: the shape of images, and of a norm without weights."""
    return nn.Sequential(
        nn.Linear(6, 8 * 4), nn.Unflatten(1, (8, 2, 2)), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.Flatten(2), nn.Tanh(),
        nn.Linear(4, 3), nn.Flatten(), nn.Linear(30, 12), nn.LayerNorm(12, elementwise_affine=False), nn.Linear(12, 2),
    )  # fmt: skip


def flattened():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10), nn.ReLU(),
        nn.Linear(10, 5),
    )  # fmt: skip


def depthwise():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.GroupNorm(4, 8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4, 5),
    )  # fmt: skip


def encoder():
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)


IMAGE = (2, 3, 6, 6)
CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)), (4, 6), {"0": 12}),
    "gated": (Gated, (4, 6), {"a": 16}),
    "attention": (Attention, (2, 5, 24), {"qkv[0]": 4}),
    "dimensioned": (Dimensioned, (2, 5, 24), {"qkv[0]": 4}),
    "gru": (Recurrent, (2, 7, 5), {"rnn": 12, "rnn.weight_ih_l1": 12}),
    "lstm": (lambda: Recurrent(nn.LSTM), (2, 7, 5), {"rnn": 12, "rnn.weight_ih_l1": 12}),
    "tied": (Tied, None, {"down": 12, "up": 18}),
    "flattened": (flattened, IMAGE, {"0": 8, "4": 10}),
    "depthwise": (depthwise, IMAGE, {"0[0]": 4}),
    "joined": (Joined, IMAGE, {"a": 6, "b": 4}),
    "unflattened": (unflattened, (4, 6), {"0[0]": 8, "3": 10, "6": 3, "8": 12}),
    "encoder": (encoder, (2, 5, 16), {"linear1": 32}),
}


def case(name):
    """Return a network in evaluation mode, an input, and the groups that can be cut with their sizes."""
    torch.manual_seed(0)
    make, shape, groups = CASES[name]
    x = torch.randint(0, 20, (2, 6)) if shape is None else torch.randn(shape)
    return make().eval(), x, groups
