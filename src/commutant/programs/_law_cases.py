"""Laws of this room, each with the modules and inputs on which it is tested."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..laws import (
    BatchIndependence,
    BatchPermutation,
    Draw,
    Equivariance,
    Invariance,
    Law,
    SetPermutation,
    Sets,
    breaks,
    obeys,
)
from ._graph_machine import GraphMachine, PortGraph
from ._graph_module import GraphModule
from ._tie_machine import TieMachine, TiePattern
from ._tied_linear import TiedLinear

_GROUPS = (
    "(rotate (tie identity))",
    "(rotate (tie (reverse (tie identity))))",
    "(rotate (tie (swap (tie identity))))",
    "(split (rotate (tie (stride (split (rotate (tie identity)))))))",
    "(single (swap (tie identity)))",
)


def _pattern(draw: Draw) -> TiePattern:
    machine = TieMachine(2 + draw.size % 9)
    program = _GROUPS[int(torch.randint(len(_GROUPS), (), generator=draw.generator))]
    return machine.output(machine.run(program))


def _generated(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return the equivariance of a tied layer to the group that its program generates."""
    pattern = _pattern(draw)
    layer = draw.module(lambda: TiedLinear(pattern, draw.width, 1 + draw.width))
    return Equivariance(pattern.action()), layer, draw.normal(3, pattern.n, draw.width)


def _too_large(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return the equivariance of a cyclic layer to all permutations."""
    machine = TieMachine(4 + draw.size % 9)
    pattern = machine.output(machine.run("(rotate (tie identity))"))
    layer = draw.module(lambda: TiedLinear(pattern, draw.width, 1 + draw.width))
    return Equivariance(SetPermutation(pairs=False)), layer, draw.normal(3, pattern.n, draw.width)


def _graph(draw: Draw) -> PortGraph:
    """Return a random tree with a cycle, with its ports."""
    names = ["push", "add", "connect", "next_port"] * (1 + draw.size % 4) + ["pop", "connect"]
    return GraphMachine().run("(" + " (".join(names) + " identity" + ")" * len(names)).graph


def _conditioned(draw: Draw) -> tuple[GraphModule, Tensor]:
    module = draw.module(lambda: GraphModule(_graph(draw), 32, 1 + draw.width)).eval()
    return module, draw.normal(4, 32)


def _rest_of_the_batch(draw: Draw) -> tuple[Law, Any, Sets]:
    module, x = _conditioned(draw)
    return BatchIndependence(), lambda x, index: module(x), Sets(x, torch.arange(len(x)))


def _order_of_the_batch(draw: Draw) -> tuple[Law, Any, Tensor]:
    return Equivariance(BatchPermutation()), *_conditioned(draw)


def _coordinates(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return the invariance to the order of coordinates, which carry elements and so must be broken."""
    return Invariance(SetPermutation(1, pairs=False)), *_conditioned(draw)


obeys("equivariance to the generated group", _generated)(TiedLinear)
breaks("equivariance of a cyclic layer to all permutations", _too_large)(TiedLinear)
obeys("batch independence", _rest_of_the_batch)(GraphModule)
obeys("equivariance to the order of the batch", _order_of_the_batch)(GraphModule)
breaks("invariance to the order of coordinates", _coordinates)(GraphModule)
