"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

import math

from ...evidence import Claim, Measurement, series
from .experiments import DEPTHS, MOMENTS, RANKS, VERY_DEEP


def _worst(m: Measurement, name: str) -> float:
    """Return the larger of |log variance| and |mean|, over all layers."""
    means = series(m, f"{name}-mean")
    return max(max(abs(math.log(v)), abs(means[i])) for i, v in series(m, f"{name}-variance").items())


def _depths(m: Measurement) -> list[float]:
    return list(series(m, "mean-selu"))


def _lead(m: Measurement, depth: float) -> float:
    """Return the accuracy of SELU minus that of the best of the others."""
    return m[f"mean-selu@{depth}"] - max(m[f"mean-{other}@{depth}"] for other in ("relu", "batch", "layer"))


def _fall(m: Measurement, method: str) -> float:
    """Return the accuracy at the largest depth minus that at 4 layers."""
    return m[f"mean-{method}@{_depths(m)[-1]}"] - m[f"mean-{method}@4"]


def _rank_lead(m: Measurement, among: str, others: tuple[str, ...]) -> float:
    """Return the number of ranks by which SELU leads the best of the others."""
    return min(m[f"{among}@{other}"] for other in others) - m[f"{among}@selu"]


_EITHER = ("small", "full")
_RIVALS = "ReLU networks without normalization, with batch norm and with layer norm"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="moments",
        statement="SELU networks keep the mean of their activations within 0.1 of 0, and the variance within a factor "
        "of 1.1 of 1, through 32 or more random layers.",
        source="section 2 and theorem 1",
        reported={},
        experiment=MOMENTS,
        effect=lambda m: -_worst(m, "lecun"),
        effect_label="minus the larger of |mean| and |log variance|, worst layer",
        unit="absolute deviation",
        at_least=-0.1,
        controls={
            "He's initialization": lambda m: -_worst(m, "he"),
            "gain 3/4": lambda m: -_worst(m, "gain 3/4"),
        },
        refutable_at=_EITHER,
    ),
    Claim(
        name="contraction",
        statement="The map of mean and variance from one SELU layer to the next is a contraction on the domain of "
        "theorem 1.",
        source="theorem 1; the largest singular value at the fixed point is 0.7877",
        reported={},
        experiment=MOMENTS,
        effect=lambda m: 1 - m["contraction"],
        effect_label="one minus the largest singular value of the map's Jacobian on a grid of the domain",
        unit="margin",
        at_least=0.0,
        basis="identity",
        cases=lambda m: m["grid"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="gradients",
        statement="Squared gradients of random SELU networks change by less than a factor of two through 32 or more "
        "layers.",
        source="abstract: vanishing and exploding gradients are impossible",
        reported={},
        experiment=MOMENTS,
        effect=lambda m: -abs(math.log2(m["lecun-gradient@1"])),
        effect_label="minus the octaves between squared gradients at the first and at the last layer",
        unit="octaves",
        at_least=-1.0,
        refutable_at=_EITHER,
    ),
    Claim(
        name="deep",
        statement="Plain SELU networks with 32 hidden layers classify tabular data at least 3 points more accurately "
        f"than {_RIVALS}.",
        source="Tables 1 and 2: the lead grows with depth",
        reported={"mean-selu@32": 0.825, "mean-relu@32": 0.804, "mean-batch@32": 0.760, "mean-layer@32": 0.788},
        labels={
            "mean-selu@32": "SELU, 32 layers (in the paper: AUC on Tox21)",
            "mean-relu@32": "ReLU, 32 layers (in the paper: AUC on Tox21)",
            "mean-batch@32": "batch norm, 32 layers (in the paper: AUC on Tox21)",
            "mean-layer@32": "layer norm, 32 layers (in the paper: AUC on Tox21)",
        },
        experiment=DEPTHS,
        effect=lambda m: _lead(m, _depths(m)[-1]),
        effect_label="test accuracy of SELU minus the best of the others, 32 layers, mean over tables (in the paper: "
        "AUC on Tox21)",
        unit="accuracy",
        at_least=0.03,
        reported_effect=0.825 - 0.804,
        controls={"with 4 layers": lambda m: _lead(m, 4)},
    ),
    Claim(
        name="no-fall",
        statement="Plain SELU networks with 32 hidden layers lose less than 5 points of accuracy on tabular data "
        "relative to SELU networks with 4.",
        source="Table 2: 84.2 with 4 layers, 82.5 with 32",
        reported={"mean-selu@4": 0.842, "mean-selu@32": 0.825},
        labels={
            "mean-selu@4": "SELU, 4 layers (in the paper: AUC on Tox21)",
            "mean-selu@32": "SELU, 32 layers (in the paper: AUC on Tox21)",
        },
        experiment=DEPTHS,
        effect=lambda m: _fall(m, "selu"),
        effect_label="test accuracy of SELU with 32 layers minus with 4, mean over tables (in the paper: AUC on Tox21)",
        unit="accuracy",
        at_least=-0.05,
        reported_effect=0.825 - 0.842,
        controls={
            "ReLU": lambda m: _fall(m, "relu"),
            "batch norm": lambda m: _fall(m, "batch"),
            "layer norm": lambda m: _fall(m, "layer"),
        },
    ),
    Claim(
        name="two-hundred",
        statement="Plain SELU networks of 200 or more layers classify digits at least 30 points more accurately with a "
        "skip connection whose weight bounds the gradients than without.",
        source="not in the paper: a remedy for the growth of gradients",
        reported={},
        experiment=VERY_DEEP,
        effect=lambda m: m["skip@accuracy"] - m["plain@accuracy"],
        effect_label="test accuracy of SELU networks with the skip minus without",
        unit="accuracy",
        at_least=0.3,
    ),
    Claim(
        name="ranks",
        statement=f"Plain SELU networks have a better mean rank over the UCI tables than {_RIVALS}, by at least a "
        "fifth of a rank.",
        source="Table 1: 0.516 ranks ahead of the next among seven",
        reported={
            "difference@selu": -0.756,
            "difference@relu": -0.240,
            "difference@layer": -0.198,
            "difference@batch": 0.504,
        },
        labels={
            f"difference@{key}": f"{name}, mean rank from the middle (here of four networks, in the paper of seven)"
            for key, name in (
                ("selu", "SELU"),
                ("relu", "ReLU"),
                ("layer", "layer norm"),
                ("batch", "batch norm"),
            )
        },
        experiment=RANKS,
        effect=lambda m: _rank_lead(m, "difference", ("relu", "batch", "layer")),
        effect_label="mean rank of the best of the others minus that of SELU",
        unit="ranks",
        at_least=0.2,
        reported_effect=0.516,
    ),
    Claim(
        name="modern",
        statement="Plain SELU networks have a better mean rank over the UCI tables than layer-norm networks under "
        "AdamW and than scikit-learn's gradient boosting.",
        source="not in the paper; methods in common use today",
        reported={},
        experiment=RANKS,
        effect=lambda m: _rank_lead(m, "rank", ("adamw", "boosting")),
        effect_label="mean rank of the better of AdamW with layer norm and gradient boosting minus that of SELU, "
        "among six",
        unit="ranks",
        at_least=0.0,
    ),
)
