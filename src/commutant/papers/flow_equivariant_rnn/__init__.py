"""Paper "Flow Equivariant Recurrent Neural Networks": its claims."""

from __future__ import annotations

from ...evidence import Paper
from ...sequences import FERNN, FERNNSeq2Seq, LiftToFlow, ParaFERNN
from .claims import CLAIMS

PAPER = Paper(
    slug="flow-equivariant-rnn",
    title="Flow Equivariant Recurrent Neural Networks",
    authors="T. Anderson Keller",
    year=2025,
    venue="Advances in Neural Information Processing Systems",
    link="https://arxiv.org/abs/2507.14793",
    room="sequences",
    idea="Motion at constant velocity acts on a sequence by a flow. A recurrent network of equivariant parts is not "
    "equivariant to flows: its state stands still while the input moves on. A FERNN keeps one slice of its state for "
    "each velocity and moves each slice along at every step, with the same number of parameters.",
    usage="""import torch
from commutant.sequences import FERNNSeq2Seq, TranslationFlow

net = FERNNSeq2Seq(1, 16, TranslationFlow.grid(1))    # 9 velocities, aligned decoder
frames = net(torch.rand(2, 5, 1, 14, 14), n_future=10)
print(frames.shape)""",
    subjects=(FERNN, FERNNSeq2Seq, ParaFERNN, LiftToFlow),
    claims=CLAIMS,
)
