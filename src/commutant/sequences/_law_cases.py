"""Laws of the layers of this room, each with the networks and inputs on which it is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..laws import BatchIndependence, Causality, Draw, Equivariance, Law, breaks, obeys
from ._block import RNNBlock
from ._fernn import FERNN, FERNNSeq2Seq
from ._flow_actions import FlowAction, SliceAction
from ._flows import Flow, TranslationFlow
from ._graph_rnn import GraphRNN
from ._layers import ParallelRecurrence
from ._models import SLSTM, SRU, MinGRU, MinLSTM, ParaGRU, ParaLSTM
from ._para_fernn import ParaFERNN

_Case: TypeAlias = Callable[[Draw], tuple[Law, Any, tuple[Tensor, ...]]]


def _recurrence(law: Law, kind: type[ParallelRecurrence], **options: Any) -> _Case:
    """Return a case of a recurrent layer, on short sequences if both directions break the law."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        layer = draw.module(lambda: kind(draw.width, 6, batch_first=True, **options))
        x = draw.normal(draw.size + 1, (1 if "bidirectional" in options else 4) * draw.size + 2, draw.width)
        return law, lambda x: layer(x)[0], (x,)

    return case


for _kind in (ParaGRU, ParaLSTM, MinGRU, MinLSTM, SRU, SLSTM):
    obeys("causality", _recurrence(Causality(), _kind))(_kind)
    obeys("batch independence", _recurrence(BatchIndependence(), _kind))(_kind)
    breaks("causality when bidirectional", _recurrence(Causality(), _kind, bidirectional=True))(_kind)
for _kind in (ParaGRU, ParaLSTM):  # sequences as short as these are solved step by step unless a method is named
    obeys("causality of the parallel solver", _recurrence(Causality(), _kind, method="multishoot"))(_kind)


def _block(law: Law) -> _Case:
    """Return a case of a residual block."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        block = draw.module(lambda: RNNBlock(8, heads=2))
        return law, lambda x: block(x)[0], (draw.normal(draw.size + 1, 2 * draw.size + 2, 8),)

    return case


obeys("causality", _block(Causality()))(RNNBlock)
obeys("batch independence", _block(BatchIndependence()))(RNNBlock)


def _wired(law: Law) -> _Case:
    """Return a case of a network wired by a graph of four nodes."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        wires = (torch.tensor([[0, 1, 0], [2, 2, 3]]), 4)
        net = draw.module(lambda: GraphRNN(wires, draw.width + 4, "tanh"))
        return law, net, (4 * draw.normal(draw.size + 1, draw.size + 3, draw.width + 4),)

    return case


# tanh hardly varies on large inputs, where float32 has no digits to spare
_LOOSE = {torch.float32: 1e-3}
obeys("causality", _wired(Causality()), tolerance=_LOOSE)(GraphRNN)
obeys("batch independence", _wired(BatchIndependence()), tolerance=_LOOSE)(GraphRNN)


def _flow(flow: Callable[[], Flow], pool: str | None, static: bool = False, v_mixing: int = 0) -> _Case:
    """Return a case of equivariance under all flows of a 3 x 3 torus, for a network that knows those of `flow`."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        net = draw.module(lambda: FERNN(1, 2, flow(), num_layers=2, pool=pool, v_mixing=v_mixing, activation="tanh"))
        moves = FlowAction(TranslationFlow.closed(3, 3), static=static)
        hidden = SliceAction(net.flow, static=static) if pool is None else moves
        x = draw.normal(2, draw.size % 4 + 2, 1, 3, 3)
        return Equivariance(moves, output=hidden), lambda x: net(x)[0], (x,)

    return case


def _images(law: Law, make: Callable[[], nn.Module]) -> _Case:
    """Return a case of a network on sequences of images."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        net = draw.module(make)
        return law, lambda x: net(x)[0], (draw.normal(3, draw.size % 4 + 2, 1, 4, 4),)

    return case


obeys("flow equivariance of every slice", _flow(lambda: TranslationFlow.closed(3, 3), None))(FERNN)
obeys("flow equivariance, velocities mixing", _flow(lambda: TranslationFlow.closed(3, 3), "max", v_mixing=1))(FERNN)
obeys("static equivariance without velocities", _flow(lambda: TranslationFlow.grid(0), "max", static=True))(FERNN)
breaks("flow equivariance without velocities", _flow(lambda: TranslationFlow.grid(0), "max"))(FERNN)
breaks("flow equivariance on a part of V", _flow(lambda: TranslationFlow([[0, 0], [0, 1]]), "max"))(FERNN)
obeys("causality", _images(Causality(), lambda: FERNN(1, 2, TranslationFlow.grid(1))))(FERNN)
obeys("batch independence", _images(BatchIndependence(), lambda: FERNN(1, 2, TranslationFlow.grid(1))))(FERNN)


def _forecast(decode: str) -> _Case:
    """Return a case of a forecast on a ring of five places."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        flow = TranslationFlow.closed(5)
        net = draw.module(
            lambda: FERNNSeq2Seq(1, 4, flow, decode=decode, decoder_layers=1, activation="tanh", bias=False)
        )
        x = draw.normal(2, draw.size % 3 + 2, 1, 5)
        law = Equivariance(FlowAction(flow), output=FlowAction(flow, start=x.shape[1]))
        return law, lambda x: net(x, 3), (x,)

    return case


obeys("flow equivariance of the forecast", _forecast("aligned"))(FERNNSeq2Seq)
breaks("flow equivariance of the paper's lagged decoder", _forecast("lagged"))(FERNNSeq2Seq)


def _parallel_flow(law: Law | None) -> _Case:
    """Return a case of a parallel flow-equivariant recurrence: flow equivariance, or another law."""

    def case(draw: Draw) -> tuple[Law, Any, tuple[Tensor, ...]]:
        flow = TranslationFlow.closed(3, 3)
        net = draw.module(lambda: ParaFERNN(1, 2, flow))
        x = draw.normal(2, 5 * draw.size + 2, 1, 3, 3)
        return law or Equivariance(FlowAction(flow), output=FlowAction(flow)), lambda x: net(x)[0], (x,)

    return case


obeys("flow equivariance", _parallel_flow(None))(ParaFERNN)
obeys("causality", _parallel_flow(Causality()))(ParaFERNN)
