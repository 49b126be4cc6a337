"""Thesis "Investigating Sparsity in Recurrent Neural Networks": its claims."""

from __future__ import annotations

from ...evidence import Paper
from ...sequences import GraphRNN, prune_recurrent, to_sparse
from .claims import CLAIMS

PAPER = Paper(
    slug="rnn-sparsity",
    title="Investigating Sparsity in Recurrent Neural Networks",
    authors="Harshil Darji",
    year=2024,
    venue="arXiv",
    link="https://arxiv.org/abs/2407.20601",
    room="sequences",
    idea="There are two ways to a sparse recurrent network: prune a trained one by magnitude and retrain it with the "
    "mask fixed, or wire one by a random graph. The thesis finds that most weights can be removed, that LSTM and GRU "
    "recover even without hidden-to-hidden weights, and that the accuracy of wired networks correlates with properties "
    "of the graph.",
    usage="""import torch
from commutant.sequences import prune_recurrent, to_sparse

rnn = prune_recurrent(torch.nn.GRU(64, 256), 0.95)    # masks that survive training
y, h_n = to_sparse(rnn)(torch.randn(50, 8, 64))       # inference on the remaining weights
print(y.shape)""",
    subjects=(GraphRNN, prune_recurrent, to_sparse),
    claims=CLAIMS,
)
