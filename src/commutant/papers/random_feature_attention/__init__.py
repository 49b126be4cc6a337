"""Paper "What can a Single Attention Layer Learn?": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...sets import (
    RandomAttentionAggregation,
    RandomAttentionClassifier,
    RandomAttentionFeatures,
    RandomAttentionRegressor,
    attention_kernel,
)
from .claims import CLAIMS

PAPER = Paper(
    slug="random-feature-attention",
    title="What can a Single Attention Layer Learn? A Study Through the Random Features Lens",
    authors="Hengyu Fu, Tianyu Guo, Yu Bai, Song Mei",
    year=2023,
    venue="NeurIPS",
    link="https://arxiv.org/abs/2307.11353",
    room="sets",
    idea="An attention layer with many heads, whose query-key matrices are drawn at random and frozen, and whose value "
    "matrices are trained, is a linear model on features of a query and a set of keys. It learns averages of functions "
    "of the query and one key from few samples, and a mean of the drawn matrices that is not zero helps where the "
    "target depends on the inner product of query and key.",
    usage="""import torch
from commutant.sets import RandomAttentionRegressor

sets = [torch.randn(n, 3) for n in (4, 7, 5, 6) * 10]   # any sizes
y = torch.stack([s.square().sum(1).mean() for s in sets])
model = RandomAttentionRegressor(num_heads=64).fit(sets, y)
print(model.predict(sets[:2]))""",
    subjects=(
        RandomAttentionFeatures,
        RandomAttentionRegressor,
        RandomAttentionClassifier,
        RandomAttentionAggregation,
        attention_kernel,
    ),
    claims=CLAIMS,
)
