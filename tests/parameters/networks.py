"""Small networks that together use every rule, with the sizes of their groups."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    """Network from a dictionary of modules or parameters and a function of them and the input."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = forward

    def forward(self, *inputs):
        return self.function(self, *inputs)


@dataclass
class Case:
    build: Callable[[], tuple[nn.Module, tuple]]
    sizes: list[int]


CASES: dict[str, Case] = {}


def case(*sizes):
    def register(build):
        CASES[build.__name__] = Case(build, sorted(sizes))
        return build

    return register


def x(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def p(*shape):
    return nn.Parameter(torch.randn(*shape))


@case(7, 8)
def mlp():
    return nn.Sequential(
        nn.Linear(4, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 8, bias=False), nn.PReLU(8), nn.Linear(8, 2)
    ), (x(3, 4),)


@case(6)
def cnn_flattened():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 5)
    ), (x(2, 3, 8, 8),)


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        stride = 1 if before == after else 2
        self.a, self.b = nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after)
        self.c, self.d = nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride) if before != after else nn.Identity()

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.d(self.c(F.relu(self.b(self.a(x))))))


@case(8, 8, 12, 12)
def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), Block(8, 8), Block(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)
    ), (x(2, 3, 9, 9),)


@case(4, 2)
def shortcut_padded_with_zeros():
    """Build a block with 1 + 4 + 2 channels after the shortcut: the padding on each side is a separate part."""

    def forward(m, a):
        h = m.a(a).relu()
        return m.head((m.b(h).relu() + F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))).mean((2, 3)))

    return Net(forward, a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(4, 7, 3, 2, 1), head=nn.Linear(7, 2)), (
        x(2, 3, 6, 6),
    )


def attention(m, h):
    batch, length, width = h.shape
    heads = m.heads
    q, k, v = m.qkv(h).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return m.out(mixed.transpose(1, 2).reshape(batch, length, width))


class GPTBlock(nn.Module):
    def __init__(self, width=12, heads=3):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 20), nn.Linear(20, width)

    def forward(self, h):
        h = h + attention(self, self.norm(h))
        return h + self.down(F.gelu(self.up(h)))


@case(12, 3, 4, 4, 20, 3, 4, 4, 20)
def gpt_tied():
    def forward(m, tokens):
        h = m.embed(tokens) + m.place(torch.arange(tokens.shape[1]))
        return m.head(m.blocks(h))

    net = Net(forward, embed=nn.Embedding(11, 12), place=nn.Embedding(9, 12),
              blocks=nn.Sequential(GPTBlock(), GPTBlock()), head=nn.Linear(12, 11, bias=False))  # fmt: skip
    net.head.weight = net.embed.weight
    return net, (torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(1)),)


@case(3, 4, 4, 20)
def torch_encoder_layer():
    return nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), (x(2, 5, 12),)


@case(2, 2, 3, 5, 10)
def grouped_query_attention():
    """Build attention with two pairs of query heads; the rotary embedding fixes the channels of query and key."""

    def forward(m, h):
        b, t, _ = h.shape
        q, k, v = m.q(h).view(b, t, 4, 3 * 2), m.k(h).view(b, t, 2, 6), m.v(h).view(b, t, 2, 3)
        q, k, v = (a.transpose(1, 2) for a in (q, k, v))
        angle = torch.arange(t)[:, None] * torch.tensor([1.0, 0.3, 0.1])
        cos, sin = angle.cos(), angle.sin()

        def rotate(a):
            first, second = a.chunk(2, -1)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

        k, v = rotate(k), v
        k = k[:, :, None].expand(b, 2, 2, t, 6).reshape(b, 4, t, 6)
        v = v[:, :, None].expand(b, 2, 2, t, 3).reshape(b, 4, t, 3)
        scores = torch.matmul(rotate(q), k.transpose(2, 3)) / 6**0.5
        scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -1e9)
        mixed = torch.matmul(scores.softmax(-1), v).transpose(1, 2).reshape(b, t, 12)
        gate, up = m.up(m.out(mixed)).chunk(2, -1)
        return m.down(F.silu(gate) * up)

    return Net(forward, q=nn.Linear(5, 24), k=nn.Linear(5, 12), v=nn.Linear(5, 6), out=nn.Linear(12, 5),
               up=nn.Linear(5, 20), down=nn.Linear(10, 3)), (x(2, 7, 5),)  # fmt: skip


@case(2, 3, 4)
def attention_with_gqa_flag():
    def forward(m, h):
        b, t, _ = h.shape
        q = m.q(h).view(b, t, 6, 4).transpose(1, 2)
        k, v = m.k(h).view(b, t, 3, 4).transpose(1, 2), m.v(h).view(b, t, 3, 2).transpose(1, 2)
        mask = torch.zeros(t, t)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).sum(1)

    return Net(forward, q=nn.Linear(9, 24), k=nn.Linear(9, 12, bias=False), v=nn.Linear(9, 6)), (x(2, 5, 9),)


@case(4, 3, 6)
def grouped_and_depthwise():
    return nn.Sequential(
        nn.Conv1d(4, 12, 1), nn.GroupNorm(4, 12), nn.Conv1d(12, 24, 3, groups=4), nn.ReLU(),
        nn.Conv1d(24, 24, 3, groups=24), nn.ReLU(), nn.Conv1d(24, 3, 1),
    ), (x(2, 4, 9),)  # fmt: skip


@case(4, 3)
def grouped_convolution_beside_a_stream():
    """Build a convolution with the stream on both sides, so that its groups may move, but not single channels."""
    return Net(lambda m, a: m.c(m.a(a) + m.b(m.a(a)).tanh()), a=nn.Conv1d(2, 12, 1),
               b=nn.Conv1d(12, 12, 3, padding=1, groups=4), c=nn.Conv1d(12, 2, 1)), (x(2, 2, 9),)  # fmt: skip


@case(8, 3)
def squeeze_excite():
    def forward(m, a):
        h = m.a(a).relu()
        gate = m.up(m.down(h.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return m.head((h * gate).amax((2, 3)))

    return Net(forward, a=nn.Conv2d(3, 8, 3), down=nn.Conv2d(8, 3, 1), up=nn.Conv2d(3, 8, 1),
               head=nn.Linear(8, 2)), (x(2, 3, 6, 6),)  # fmt: skip


@case(5, 6)
def concatenated():
    return Net(lambda m, a: m.head(torch.cat([m.a(a).relu(), m.b(a).tanh()], 1)), a=nn.Linear(4, 5), b=nn.Linear(4, 6),
               head=nn.Linear(11, 2)), (x(3, 4),)  # fmt: skip


@case(5, 6)
def split_apart():
    def forward(m, a):
        first, second = m.a(a).split([5, 6], -1)
        return m.b(first.relu()) * m.c(second.tanh())

    return Net(forward, a=nn.Linear(4, 11), b=nn.Linear(5, 2), c=nn.Linear(6, 2)), (x(3, 4),)


@case(10, 12)
def rms_norm_and_swiglu():
    def forward(m, a):
        h = m.norm(m.embed(a))
        return m.head(h + m.down(F.silu(m.gate(h)) * m.up(h)))

    return Net(forward, embed=nn.Linear(4, 10), norm=nn.RMSNorm(10), gate=nn.Linear(10, 12, bias=False),
               up=nn.Linear(10, 12, bias=False), down=nn.Linear(12, 10), head=nn.Linear(10, 3)), (x(3, 4),)  # fmt: skip


@case(6, 6, 6, 6)
def lstm_two_layers_two_ways():
    def forward(m, a):
        out, (hidden, cell) = m.rnn(a)
        return m.head(torch.cat([out[:, -1], hidden[-1], cell[0]], -1))

    return Net(forward, rnn=nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True), head=nn.Linear(24, 3)), (
        x(2, 5, 4),
    )


@case(5, 4)
def gru_and_rnn():
    def forward(m, a):
        h, _ = m.gru(a)
        return m.head(m.rnn(h)[0])

    return Net(forward, gru=nn.GRU(4, 5), rnn=nn.RNN(5, 4), head=nn.Linear(4, 3)), (x(6, 2, 4),)


@case(4, 7)
def lstm_with_projection():
    return Net(lambda m, a: m.head(m.rnn(a)[0]), rnn=nn.LSTM(3, 7, proj_size=4), head=nn.Linear(4, 2)), (x(6, 2, 3),)


@case(8, 6)
def parallel_recurrences():
    from commutant.sequences import ParaGRU, ParaLSTM

    def forward(m, a):
        return m.head(m.lstm(m.gru(a)[0])[0])

    return Net(forward, gru=ParaGRU(5, 8), lstm=ParaLSTM(8, 6), head=nn.Linear(6, 3)), (x(7, 2, 5),)


@case(9)
def unrolled_rnn():
    def forward(m, a):
        h = a.new_zeros(a.shape[0], 9)
        for t in range(3):
            h = torch.tanh(F.linear(a[:, t], m.w) + h @ m.u.t())
        return m.head(h)

    return Net(forward, w=p(9, 4), u=p(9, 9), head=nn.Linear(9, 2)), (x(2, 3, 4),)


@case(3, 6)
def mixture_of_experts():
    """Build experts that are permuted as wholes, with the rows of the router; channels move within each expert."""

    def forward(m, a):
        weight, chosen = m.router(a).softmax(-1).topk(2, -1)
        h = torch.einsum("bi,bkio->bko", a, m.w[chosen]).relu()
        return (torch.einsum("bko,bkoj->bkj", h, m.v[chosen]) * weight[..., None]).sum(1)

    return Net(forward, router=nn.Linear(4, 3), w=p(3, 4, 6), v=p(3, 6, 2)), (x(5, 4),)


@case(3)
def dispatched_by_one_hot_and_gather():
    def forward(m, a):
        scores = m.router(a)
        chosen = scores.argmax(-1)
        hot = F.one_hot(chosen, 3).to(a.dtype)
        picked = scores.gather(-1, chosen[:, None])
        spread = torch.zeros_like(scores).scatter(-1, chosen[:, None], picked)
        return hot @ m.w + F.embedding(chosen, m.v) + torch.index_select(m.v, 0, chosen) + spread @ m.w

    return Net(forward, router=nn.Linear(4, 3), w=p(3, 2), v=p(3, 2)), (x(5, 4),)


@case(6)
def graph_network():
    """Build message passing by index_select and index_add, and a scatter with an expanded index."""

    def forward(m, nodes, source, target):
        h = m.a(nodes).relu()
        messages = h.index_select(0, source)
        gathered = torch.zeros_like(h).index_add(0, target, messages)
        largest = torch.zeros_like(h).scatter_reduce(0, target[:, None].expand(-1, 6), h[source], "amax")
        added = torch.zeros_like(h).scatter_add(0, target[:, None].expand(-1, 6), messages)
        return m.b(gathered + largest + added)

    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    return Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2)), (x(5, 3), edges[0], edges[1])


@case(6, 4)
def unet():
    def forward(m, a):
        first = m.a(a).relu()
        low = m.b(F.avg_pool2d(first, 2)).relu()
        back = F.interpolate(m.up(low), scale_factor=2.0, mode="nearest")
        return m.head(torch.cat([first, back], 1))

    return Net(forward, a=nn.Conv2d(2, 6, 3, padding=1), b=nn.Conv2d(6, 4, 3, padding=1),
               up=nn.ConvTranspose2d(4, 3, 1), head=nn.Conv2d(9, 2, 1)), (x(2, 2, 8, 8),)  # fmt: skip


# the three channels of `up` are a group too
CASES["unet"].sizes = [3, 4, 6]


@case(4, 3, 2)
def transposed_grouped_convolution():
    return nn.Sequential(
        nn.Conv1d(2, 8, 1), nn.ConvTranspose1d(8, 12, 3, stride=2, groups=4), nn.ReLU(), nn.Conv1d(12, 2, 1)
    ), (x(2, 2, 5),)


@case(5)
def super_resolution():
    return nn.Sequential(
        nn.Conv2d(2, 20, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(5, 2, 3, padding=1)
    ), (x(2, 2, 4, 4),)


@case(5)
def pixels_to_channels():
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.PixelUnshuffle(2), nn.Conv2d(20, 2, 1)), (x(2, 2, 4, 4),)


@case(6, 4)
def weight_norm_and_low_rank():
    from torch.nn.utils.parametrizations import weight_norm

    net = Net(lambda m, a: m.b((m.a(a) + a @ m.down @ m.up).tanh()), a=weight_norm(nn.Linear(3, 6)), down=p(3, 4),
              up=p(4, 6), b=nn.Linear(6, 2))  # fmt: skip
    return net, (x(5, 3),)


@case(6)
def shuffled_channels():
    """Build two interleaved groups of three, on which only permutations shared by both halves remain."""

    def forward(m, a):
        h = m.a(a)
        h = h.view(h.shape[0], 2, 3).transpose(1, 2).reshape(h.shape[0], 6)
        return m.b(h.relu())

    return Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2)), (x(3, 4),)


CASES["shuffled_channels"].sizes = [2, 3]


@case(6)
def reductions_and_copies():
    def forward(m, a):
        h = m.a(a)
        spread = h.var(0, keepdim=True) + h.std(0) + h.logsumexp(0) + torch.linalg.vector_norm(h, dim=0)
        lifted = torch.where(h > 0, h, spread.expand_as(h)).clone()
        twice = torch.stack([lifted, lifted.cumsum(0).flip(0)], 0).sum(0)
        filled = torch.full_like(h, 0.5) + torch.maximum(twice, h).clamp(-3, 3)
        return m.b(filled.repeat(1, 2).view(-1, 2, 6).prod(1))

    return Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2)), (x(3, 4),)


@case(6)
def max_along_other_axes():
    def forward(m, a):
        h = m.a(a)
        best, where = h.max(1)
        ordered = h.sort(1).values[:, 0]
        return m.b(best + ordered + h.median(1).values + F.softmax(h, -1).sum(1) + where.to(h.dtype))

    return Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 2)), (x(3, 5, 4),)


@case(6)
def gated_by_halves():
    return nn.Sequential(nn.Linear(3, 12), nn.GLU(), nn.Linear(6, 2)), (x(4, 3),)


@case(4, 3)
def einsum_bilinear():
    return Net(
        lambda m, a, b: torch.einsum("bi,ij,bj->b", m.a(a), m.w, m.b(b)),
        a=nn.Linear(3, 4),
        b=nn.Linear(2, 3),
        w=p(4, 3),
    ), (x(5, 3), x(5, 2))


@case(4, 5)
def einsum_with_an_ellipsis():
    def forward(m, a):
        h = torch.einsum("...i,io", a, m.w) / (1 + torch.linalg.norm(m.c(a), dim=-1, keepdim=True))
        return torch.einsum("... o, o p -> ... p", h.tanh(), m.v) + torch.einsum("boi,oi", m.c(a), m.u)[:, None, None]

    return Net(forward, w=p(3, 4), v=p(4, 2), c=nn.Linear(3, 5), u=p(6, 5)), (x(2, 6, 3),)


@case(4, 5)
def tensor_contraction():
    def forward(m, a):
        h = torch.tensordot(a, m.w, ([1], [0])).relu()
        return torch.tensordot(h, m.v, ([2, 1], [1, 0]))

    return Net(forward, w=p(3, 4, 5), v=p(4, 5, 2)), (x(6, 3),)


@case(6)
def matrix_products():
    def forward(m, a):
        h = torch.addmm(m.bias, a, m.w)
        h = torch.baddbmm(h[:, None], h[:, None], m.u.expand(a.shape[0], 6, 6))[:, 0]
        return torch.mv(h, m.v)[:, None] + torch.bmm(h[:, None], m.u.expand(a.shape[0], 6, 6))[:, 0] @ m.v[:, None]

    return Net(forward, bias=p(6), w=p(3, 6), u=p(6, 6), v=p(6)), (x(4, 3),)


@case(2, 3)
def written_in_slices():
    """Build in-place writes into a buffer of zeros."""

    def forward(m, a):
        out = a.new_zeros(a.shape[0], 5)
        out[:, :2] = m.a(a)
        out[:, 2:] = m.b(a).relu()
        return m.c(out)

    return Net(forward, a=nn.Linear(4, 2), b=nn.Linear(4, 3), c=nn.Linear(5, 2)), (x(3, 4),)


@case(6)
def reflected_and_padded():
    def forward(m, a):
        h = m.a(F.pad(a, (1, 1), mode="reflect"))
        h = F.pad(h, (2, -1), value=0.3).roll(1, -1)
        return m.b(F.adaptive_max_pool1d(F.max_pool1d(h, 2), 2))

    return Net(forward, a=nn.Conv1d(2, 6, 3), b=nn.Conv1d(6, 3, 2)), (x(2, 2, 9),)


@case(6)
def sampled_on_a_grid():
    def forward(m, a, grid):
        return m.b(F.grid_sample(F.instance_norm(m.a(a).relu()), grid, align_corners=False).mean((2, 3)))

    return Net(forward, a=nn.Conv2d(2, 6, 1), b=nn.Linear(6, 2)), (x(2, 2, 4, 4), x(2, 3, 3, 2, seed=1).tanh())


@case(5)
def repeated_entries():
    def forward(m, a):
        return m.b(m.a(a).repeat_interleave(2, -1)) + m.c(m.a(a).tril())

    return Net(forward, a=nn.Linear(3, 5), b=nn.Linear(10, 2), c=nn.Linear(5, 2)), (x(4, 3),)


CASES["repeated_entries"].sizes = [2]  # tril keeps the hidden axis in place, not the two copies of each entry


@case(4)
def outer_and_complex():
    def forward(m, a):
        h = m.a(a[0])
        pairs = torch.view_as_real(torch.view_as_complex(a[:, :2].contiguous()) * 2).sum()
        return m.b(torch.outer(h, h) @ h) + pairs

    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), (x(4, 3),)


@case(2, 4)
def unknown_operator():
    """Build a network with `cross`, which has no rule: the axes that it reads are fixed, the others are not."""

    def forward(m, a):
        return torch.linalg.cross(m.a(a), m.d(a)) + m.c(m.b(a).relu()).square().sum()

    return Net(forward, a=nn.Linear(2, 3), d=nn.Linear(2, 3), b=nn.Linear(2, 4), c=nn.Linear(4, 2)), (x(4, 2),)


@case(5, 6, 7)
def bilinear_form():
    return Net(lambda m, a, b: m.d(m.c(m.a(a).relu(), m.b(b).sin()).tanh()), a=nn.Linear(3, 5), b=nn.Linear(2, 6),
               c=nn.Bilinear(5, 6, 7), d=nn.Linear(7, 2)), (x(4, 3), x(4, 2))  # fmt: skip


@case(4, 3)
def two_heads_of_a_bilinear_form():
    """Build a sum over channels while the heads of both sides are two axes of the result."""

    def forward(m, a):
        h = m.a(a).view(-1, 3, 4).tanh()
        return F.bilinear(h[:, :, None].expand(-1, 3, 3, 4), h[:, None].expand(-1, 3, 3, 4), m.w).sum((1, 2))

    return Net(forward, a=nn.Linear(3, 12), w=p(2, 4, 4)), (x(5, 3),)


@case(6, 5)
def bags_of_embeddings():
    def forward(m, tokens, starts):
        h = m.e(tokens, starts) + F.embedding_bag(tokens.view(2, -1), m.f, mode="max")
        return m.b((h + F.embedding_bag(tokens, m.f, starts, per_sample_weights=m.g[tokens], mode="sum")).relu())

    tokens = torch.tensor([0, 3, 3, 1, 5, 2])
    net = Net(forward, e=nn.EmbeddingBag(7, 6), f=p(7, 6), g=p(7), b=nn.Sequential(nn.Linear(6, 5), nn.Tanh(),
              nn.Linear(5, 2)))  # fmt: skip
    return net, (tokens, torch.tensor([0, 2]))


@case(6, 5, 4)
def distances_to_centres():
    def forward(m, a):
        near = torch.cdist(m.a(a), m.centres)
        turned = F.cosine_similarity(m.b(a)[:, None], m.turned, dim=-1)
        apart = F.pairwise_distance(m.a(a), m.shift, keepdim=True)
        return near @ m.w + turned @ m.w + apart

    return Net(forward, a=nn.Linear(3, 6), centres=p(5, 6), b=nn.Linear(3, 4), turned=p(5, 4), shift=p(6), w=p(5, 2)), (
        x(4, 3),
    )


@case(5, 6)
def nearest_center():
    """Build a lookup, by the positions of the smallest distances, of rows that move with the centers."""
    return Net(lambda m, a: m.v[torch.cdist(m.a(a), m.centres).argmin(-1)], a=nn.Linear(3, 6), centres=p(5, 6),
               v=p(5, 2)), (x(4, 3),)  # fmt: skip


@case(6, 6)
def fourier_layer():
    """Build Fourier layers with fixed frequencies, free channels, and time reversed, shifted and filtered."""

    def forward(m, a):
        h = m.a(a)
        found = torch.fft.rfft2(h)
        mixed = torch.einsum("bixy,ioxy->boxy", found[:, :, :3, :3], torch.view_as_complex(m.w))
        whole = torch.zeros(2, 6, 8, 5, dtype=mixed.dtype)
        whole[:, :, :3, :3] = mixed
        h = (torch.fft.irfft2(whole, s=(8, 8)) + m.c(h)).relu()
        around = torch.fft.fftshift(torch.fft.fft(h, dim=-1), dim=(-1,)).real + torch.fft.fftn(h, s=(8, 8)).imag
        return m.b(around + torch.fft.ifft(h.to(around.dtype), dim=2).conj().real)

    weight = p(6, 6, 3, 3, 2)
    return Net(forward, a=nn.Conv2d(2, 6, 1), c=nn.Conv2d(6, 6, 1), b=nn.Conv2d(6, 2, 1), w=weight), (x(2, 2, 8, 8),)


@case()
def fourier_over_channels():
    return Net(lambda m, a: m.b(torch.fft.rfft(m.a(a)).abs()), a=nn.Linear(3, 6), b=nn.Linear(4, 2)), (x(4, 3),)


@case(6, 5, 4)
def unrolled_cells():
    def forward(m, a):
        h = a.new_zeros(a.shape[0], 6)
        g = c = a.new_zeros(a.shape[0], 5)
        r = m.start.expand(a.shape[0], -1)
        for t in range(3):
            h = m.gru(a[:, t], h)
            g, c = m.lstm(h, (g, c))
            r = m.rnn(g, r)
        return m.b(r) + m.d(c)

    return Net(forward, gru=nn.GRUCell(4, 6), lstm=nn.LSTMCell(6, 5), rnn=nn.RNNCell(5, 4, nonlinearity="relu"),
               start=p(1, 4), b=nn.Linear(4, 2), d=nn.Linear(5, 2)), (x(2, 3, 4),)  # fmt: skip


@case(6, 5, 5, 4, 4)
def one_step_of_cells():
    """Build single steps of recurrent cells; the hidden states of the last two are read by a matrix only."""

    def forward(m, a):
        h = m.gru(a, m.h.expand(len(a), -1))
        g, c = m.lstm(h, (m.g.expand(len(a), -1), m.c.expand(len(a), -1)))
        return m.b(m.rnn(g, m.r.expand(len(a), -1))) + m.d(c)

    return Net(forward, gru=nn.GRUCell(4, 6), lstm=nn.LSTMCell(6, 5), rnn=nn.RNNCell(5, 4), h=p(1, 6), g=p(1, 5),
               c=p(1, 5), r=p(1, 4), b=nn.Linear(4, 2), d=nn.Linear(5, 2)), (x(3, 4),)  # fmt: skip


@case(2, 3)
def windows_of_hidden_images():
    """Build windows whose rows, columns and positions are hidden units, which must stay."""

    def forward(m, a):
        columns = F.unfold(m.a(a).view(-1, 2, 3, 4).relu(), 2)
        image = F.fold(m.c(a).view(-1, 12, 6).relu(), (3, 4), 2)
        return m.b(columns.flatten(1)) + m.d(image.flatten(1))

    return Net(forward, a=nn.Linear(3, 24), b=nn.Linear(48, 2), c=nn.Linear(3, 72), d=nn.Linear(36, 2)), (x(4, 3),)


@case(5, 4)
def windows_as_columns():
    def forward(m, a):
        columns = F.unfold(m.a(a).relu(), 3, padding=1)
        back = F.fold(m.b(columns.transpose(1, 2)).tanh().transpose(1, 2), (6, 6), 2, stride=2)
        return m.c(back)

    return Net(forward, a=nn.Conv2d(2, 5, 1), b=nn.Linear(45, 16), c=nn.Conv2d(4, 2, 1)), (x(2, 2, 3, 3),)


@case(5)
def sliding_windows():
    """Build windows over time, where channels are free, and over hidden units, which are fixed."""

    def forward(m, a):
        return m.b(m.a(a).relu().unfold(-1, 3, 2).flatten(1)) + m.d(m.c(a[:, 0]).relu().unfold(1, 3, 1).flatten(1))

    return Net(forward, a=nn.Conv1d(2, 5, 1), b=nn.Linear(45, 2), c=nn.Linear(7, 6), d=nn.Linear(12, 2)), (x(2, 2, 7),)


@case(2, 2, 3)
def channel_shuffle():
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.ChannelShuffle(2), nn.Conv2d(6, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ), (x(2, 3, 4, 4),)  # fmt: skip


@case(6, 2)
def every_second_channel():
    def forward(m, a):
        h = m.a(a)
        return m.b(h[:, ::2].relu() * h[:, 1::2]) + m.c(m.d(a).relu()[:, 1::3])

    return Net(forward, a=nn.Linear(4, 12), b=nn.Linear(6, 2), d=nn.Linear(4, 6), c=nn.Linear(2, 2)), (x(3, 4),)


@case(4, 4, 4)
def zeros_beside_biases():
    """Build attention without a bias of the key: constant zeros are between the biases of query and value."""

    def forward(m, a):
        q, k, v = F.linear(a, m.w, torch.cat([m.q, m.zeros, m.v])).chunk(3, -1)
        return m.b(q.sigmoid()) + m.c(k.relu()) + m.d(v.tanh())

    net = Net(forward, w=p(12, 3), q=p(4), v=p(4), b=nn.Linear(4, 2), c=nn.Linear(4, 2), d=nn.Linear(4, 2))
    net.register_buffer("zeros", torch.zeros(4), persistent=False)
    return net, (x(4, 3),)


@case(16)
def grouped_matrices():
    """Build products of three stretches of rows with one matrix each; the matrices keep their order."""

    def grouped(rows, weights):
        if rows.dtype == torch.float32:
            return F.grouped_mm(rows, weights, offs=torch.tensor([2, 4, 6], dtype=torch.int32))
        return torch.cat([r @ w for r, w in zip(rows.split(2), weights, strict=True)])

    return Net(lambda m, a: grouped(grouped(a, m.w).relu(), m.v), w=p(3, 8, 16), v=p(3, 16, 8)), (x(6, 8),)


@case(8)
def branches_on_data():
    """Build a network that torch.export can't follow; the path of the example is traced instead."""

    def forward(m, a):
        h = m.a(a)
        return m.b(h.relu() if float(h.sum()) > -1e9 else h.cumsum(-1))

    return Net(forward, a=nn.Linear(3, 8), b=nn.Linear(8, 2)), (x(4, 3),)


@case()
def nothing_hidden():
    return nn.Linear(3, 2), (x(4, 3),)


@case()
def one_hidden_unit():
    return nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2)), (x(4, 3),)
