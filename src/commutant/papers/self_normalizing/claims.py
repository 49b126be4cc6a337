"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

import math

from ...evidence import Claim, Measurement, series
from .experiments import DEPTHS, MOMENTS, RANKS, VERY_DEEP


def _worst(m: Measurement, name: str) -> float:
    """Return the largest distance of the variance from one, in logarithms, or of the mean from zero."""
    means = series(m, f"{name}-mean")
    return max(max(abs(math.log(v)), abs(means[i])) for i, v in series(m, f"{name}-variance").items())


def _depths(m: Measurement) -> list[float]:
    return list(series(m, "mean-selu"))


def _lead(m: Measurement, depth: float) -> float:
    """Accuracy of SELU above the best of the others."""
    return m[f"mean-selu@{depth}"] - max(m[f"mean-{other}@{depth}"] for other in ("relu", "batch", "layer"))


def _fall(m: Measurement, method: str) -> float:
    """Accuracy at the deepest above that at 4 layers."""
    return m[f"mean-{method}@{_depths(m)[-1]}"] - m[f"mean-{method}@4"]


def _rank_lead(m: Measurement, among: str, others: tuple[str, ...]) -> float:
    """Ranks by which SELU is ahead of the best of the others."""
    return min(m[f"{among}@{other}"] for other in others) - m[f"{among}@selu"]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="moments",
        statement="Through 32 layers of 512 units mean and variance of SELU's activations stay within 0.1 of 0 and 1.",
        source="section 2 and theorem 1",
        reported={},
        experiment=MOMENTS,
        effect=lambda m: -_worst(m, "lecun"),
        effect_label="minus the worst of |mean| and |log variance|",
        at_least=-0.1,
        controls={
            "He's initialisation": lambda m: -_worst(m, "he"),
            "gain 3/4": lambda m: -_worst(m, "gain 3/4"),
        },
    ),
    Claim(
        name="contraction",
        statement="In the domain of theorem 1 the map of mean and variance contracts, and maps the domain into itself.",
        source="theorem 1; the largest singular value at the fixed point is 0.7877",
        reported={},
        experiment=MOMENTS,
        effect=lambda m: 1 - m["contraction"],
        effect_label="one minus the largest singular value on a grid of the domain",
        at_least=0.0,
        basis="identity",
        cases=lambda m: m["grid"],
    ),
    Claim(
        name="gradients",
        statement="Gradients neither explode nor vanish: their mean square changes by less than a factor of two "
        "through 32 layers.",
        source="abstract: vanishing and exploding gradients are impossible",
        reported={},
        experiment=MOMENTS,
        effect=lambda m: -abs(math.log2(m["lecun-gradient@1"])),
        effect_label="minus the octaves by which squared gradients change",
        at_least=-1.0,
    ),
    Claim(
        name="deep",
        statement="With 32 hidden layers plain SELU networks are better than ReLU networks without, with batch "
        "and with layer normalisation: three points on the mean over four tables.",
        source="Tables 1 and 2: the lead grows with depth",
        reported={},
        experiment=DEPTHS,
        effect=lambda m: _lead(m, _depths(m)[-1]),
        effect_label="accuracy above the best of the others, deepest",
        at_least=0.03,
        controls={"with 4 layers": lambda m: _lead(m, 4)},
    ),
    Claim(
        name="no-fall",
        statement="They lose less than five points from 4 layers to 32.",
        source="Table 2: 83.7 at 2 layers, 82.5 at 32",
        reported={},
        experiment=DEPTHS,
        effect=lambda m: _fall(m, "selu"),
        effect_label="accuracy at the deepest minus accuracy at 4 layers",
        at_least=-0.05,
        controls={
            "ReLU": lambda m: _fall(m, "relu"),
            "batch norm": lambda m: _fall(m, "batch"),
            "layer norm": lambda m: _fall(m, "layer"),
        },
    ),
    Claim(
        name="two-hundred",
        statement="Through 200 layers SELU as published does not train; a skip of the weight that keeps gradients "
        "in bounds gains 30 points.",
        source="not in the paper: what its growing gradients ask for",
        reported={},
        experiment=VERY_DEEP,
        effect=lambda m: m["skip@accuracy"] - m["plain@accuracy"],
        effect_label="accuracy with the skip above that without",
        at_least=0.3,
    ),
    Claim(
        name="ranks",
        statement="Over all tables at hand SELU networks have the best mean rank of plain networks, a fifth of a "
        "rank ahead of ReLU without, with batch and with layer normalisation.",
        source="Table 1: 0.516 ranks ahead of the next among seven",
        reported={
            "difference@selu": -0.756,
            "difference@relu": -0.240,
            "difference@layer": -0.198,
            "difference@batch": 0.504,
        },
        experiment=RANKS,
        effect=lambda m: _rank_lead(m, "difference", ("relu", "batch", "layer")),
        effect_label="ranks ahead of the next",
        at_least=0.2,
        reported_effect=0.516,
    ),
    Claim(
        name="modern",
        statement="SELU networks are ahead, too, of a network with layer normalisation under AdamW and of gradient "
        "boosting as scikit-learn has it.",
        source="not in the paper; what one would use today",
        reported={},
        experiment=RANKS,
        effect=lambda m: _rank_lead(m, "rank", ("adamw", "boosting")),
        effect_label="ranks ahead of the better of the two, among six",
        at_least=0.0,
    ),
)
