"""Paper "Enhancing Neural Subset Selection": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...sets import AmortizedInference, MeanField, SetUtility, SubsetSelector, continuous_greedy
from .claims import CLAIMS

PAPER = Paper(
    slug="subset-selection",
    title="Enhancing Neural Subset Selection: Integrating Background Information into Set Representations",
    authors="Binghui Xie, Yatao Bian, Kaiwen Zhou, Yongqiang Chen, Peilin Zhao, Bo Han, Wei Meng, James Cheng",
    year=2024,
    venue="ICLR",
    link="https://arxiv.org/abs/2402.03139",
    room="sets",
    idea="A utility of subsets is learned from examples of optimal subsets alone, by mean-field inference of the "
    "probability that each element is chosen (EquiVSet). The right choice also depends on the ground set, so INSET "
    "adds a second network on the pooled complement of the subset.",
    usage="""import numpy as np
from commutant.sets import SubsetSelector

rng = np.random.default_rng(0)
sets = [rng.standard_normal((rng.integers(4, 8), 2)) for _ in range(80)]   # any sizes
subsets = [s[:, 0] > s[:, 0].mean() for s in sets]                         # what should have been chosen
selector = SubsetSelector(16, epochs=5).fit(sets, subsets)
print(selector.predict(sets[:1]))                                          # the size is predicted too""",
    subjects=(SubsetSelector, SetUtility, MeanField, AmortizedInference, continuous_greedy),
    claims=CLAIMS,
)
