"""Paper "ParaRNN: Unlocking Parallel Training of Nonlinear RNNs for Large Language Models": its claims."""

from __future__ import annotations

from ...evidence import Paper
from ...sequences import MinGRU, ParaGRU, ParaLSTM, RNNBlock, solve_recurrence
from .claims import CLAIMS

PAPER = Paper(
    slug="pararnn",
    title="ParaRNN: Unlocking Parallel Training of Nonlinear RNNs for Large Language Models",
    authors="Federico Danieli, Pau Rodríguez, Miguel Sarabia, Xavier Suau, Luca Zappella",
    year=2026,
    venue="International Conference on Learning Representations",
    link="https://arxiv.org/abs/2510.21450",
    room="sequences",
    idea="A nonlinear recurrence over T steps is one system of T equations. Newton's method turns it into linear "
    "recurrences, which a parallel scan solves in logarithmic depth. With diagonal recurrent weights the Jacobian is "
    "diagonal (GRU) or consists of 2 x 2 blocks (LSTM), and the paper finds that three iterations suffice.",
    usage="""import torch
from commutant.sequences import ParaGRU

layer = ParaGRU(16, 32, batch_first=True)      # instead of nn.GRU(16, 32, batch_first=True)
y, h_n = layer(torch.randn(4, 1000, 16))
print(layer.info[0])                           # how it was solved, and the certificate""",
    subjects=(ParaGRU, ParaLSTM, MinGRU, RNNBlock, solve_recurrence),
    claims=CLAIMS,
)
