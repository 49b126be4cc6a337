"""Grids of glyphs, stacked encoders, and the graphs of the experiments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from ...programs import Found, Grammar, GraphMachine, GraphModules, PortGraph, StackedLinear, parse, search_states

_MACROS = {
    "grow": "(lam (next_port (add (connect $0))))",
    "branch": "(lam (next_port (push (add (connect $0)))))",
    "close": "(lam (next_port (pop (connect $0))))",
    "link": "(lam (next_port (connect $0)))",
}
"""Steps that build graphs faster than single primitives do."""


@cache
def searched(steps: int) -> tuple[Found[PortGraph], ...]:
    """Return what a search over graphs with the steps above finds, the smallest graphs first.

    Args:
        steps: Largest number of steps of the search.
    """
    machine = GraphMachine(10)
    dsl = machine.dsl.extended({name: parse(text) for name, text in _MACROS.items()})
    rare = dict.fromkeys(("add", "connect", "next_port", "prev_port", "func", "if_positions_equal"), 1e-9)
    found = search_states(machine, Grammar(dsl, rare), max_applications=steps)
    return tuple(sorted(found, key=lambda f: f.output.elements))


def graphs(count: int, steps: int) -> tuple[PortGraph, ...]:
    """Return graphs that are evenly spread over those of a search, the smallest first.

    Args:
        count: Number of graphs.
        steps: Largest number of steps of the search.
    """
    found = searched(steps)
    if len(found) < count:
        raise RuntimeError(f"the search found {len(found)} graphs, expected {count}; raise steps")
    return tuple(found[round(i * (len(found) - 1) / (count - 1))].output for i in range(count))


def grids(count: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images `(count, 9, 64)` as patches of 8 x 8 pixels, and labels.

    An image is a grid of 3 x 3 glyphs of one of four shapes on a grey background. With label 1 the brightness of the
    glyphs is constant along each row, with label 0 it steps up (70 %) or zig-zags from column to column.

    Args:
        count: Number of images.
        noise: Standard deviation of the noise of a pixel.
        generator: Source of randomness.
    """
    line = torch.arange(6)
    far = [f.expand(6, 6) for f in ((line[:, None] - 2.5).abs(), (line[None] - 2.5).abs())]
    shapes = torch.stack([far[0] + far[1] < 3.5, far[0].maximum(far[1]) > 2, far[0].minimum(far[1]) < 1, far[0] > 0.6])
    label = torch.randint(2, (count,), generator=generator)
    shape = shapes[torch.randint(len(shapes), (count,), generator=generator)].float()
    levels = 0.5 + 0.07 * torch.arange(5)
    row = torch.randint(3, (count, 3, 1), generator=generator)
    stepped = torch.tensor([0, 1, 2]).expand(count, 3, 3)
    zigzag = torch.tensor([0, 1, 0]).expand(count, 3, 3)
    up = (torch.rand(count, 1, 1, generator=generator) < 0.7).expand(count, 3, 3)
    step = torch.where(up, stepped, zigzag) * (1 - label)[:, None, None]
    bright = levels[row + step]
    ground = torch.rand(count, 1, 1, generator=generator) * 0.6 - 0.9
    image = ground.expand(count, 24, 24).clone()
    for i in range(3):
        for j in range(3):
            place = image[:, 8 * i + 1 : 8 * i + 7, 8 * j + 1 : 8 * j + 7]
            place += shape * bright[:, i, j, None, None]
    image += noise * torch.randn(image.shape, generator=generator)
    patches = image.unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2).flatten(2)
    return patches, label.float()


class Encoders(nn.Module):
    """Encoders of several models at once: a convolution of 8 x 8 pixels with stride 8 and two linear layers.

    Args:
        models: Number of models.
        features: Size of the output.
    """

    def __init__(self, models: int, features: int) -> None:
        super().__init__()
        self.patch = StackedLinear(models, 64, 24)
        self.hidden = StackedLinear(models, 216, 64)
        self.out = StackedLinear(models, 64, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors `(models, batch, features)` of patches `(models, batch, 9, 64)`."""
        models, batch = x.shape[:2]
        patches = nn.functional.gelu(self.patch(x.flatten(1, 2))).view(models, batch, -1)
        return self.out(nn.functional.gelu(self.hidden(patches)))


class Population(nn.Module):
    """Networks of several graphs and seeds at once.

    All graphs of a seed start from the same encoder, as seeds of a blocked experiment should.

    Args:
        graphs: Graphs; None for an encoder with one output and no graph.
        seeds: Number of seeds; models are ordered by graph and then by seed.
        features: Size of the vectors that the graphs process.
    """

    def __init__(self, graphs: Sequence[PortGraph | None], seeds: int, features: int) -> None:
        super().__init__()
        models, self.conditioned = len(graphs) * seeds, graphs[0] is not None
        self.encoders = Encoders(models, features if self.conditioned else 1)
        repeated = [g for g in graphs for _ in range(seeds) if g is not None]
        self.heads = GraphModules(repeated, features, 1) if self.conditioned else None
        if self.conditioned:
            with torch.no_grad():
                for part in self.encoders.parameters():
                    part.copy_(part[:seeds].repeat(len(graphs), *(1,) * (part.dim() - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(models, batch)` of patches `(models, batch, 9, 64)`."""
        vectors = self.encoders(x)
        return (vectors if self.heads is None else self.heads(vectors)).squeeze(-1)
