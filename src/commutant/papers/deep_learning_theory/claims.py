"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from ...evidence import Claim, Measurement, series
from ...theory import optimal_ratio
from .experiments import ASPECT, CURES, ENSEMBLES, FLUCTUATIONS, PLANE, SHARES, TRAINING
from .measures import ASPECTS, VERTICES, plane_of


def _worst_vertex(m: Measurement) -> float:
    """Return the largest relative deviation from first order, including noise."""
    rows = [f"{name}-{vertex}" for name in ("tanh", "gelu") for vertex in VERTICES]
    return max(abs(m[f"{row}@measured"] / m[f"{row}@theory"] - 1) for row in rows)


def _gain(m: Measurement, other: dict[str, float]) -> float:
    """Return the accuracy at criticality minus that at another variance, for the worse of the activations named."""
    return min(m[f"{name}-1.0@accuracy"] - m[f"{name}-{scale}@accuracy"] for name, scale in other.items())


def _at_ratio(m: Measurement, times: float) -> float:
    """Return the accuracy at a multiple of the optimal ratio minus the best of the scan, for the worse activation.

    The accuracy is that at the nearest ratio of the scan.
    """
    gaps = []
    for name in ASPECTS:
        found = series(m, f"{name}-accuracy")
        target = times * optimal_ratio(name, 10)
        gaps.append(found[min(found, key=lambda r: abs(math.log(r / target)))] - max(found.values()))
    return min(gaps)


def _bearable(m: Measurement, name: str) -> float:
    """Return the binary logarithm of the ratio at which accuracy has fallen ten points below the best of the scan."""
    found = list(series(m, f"{name}-accuracy").items())
    bar = max(accuracy for _, accuracy in found) - 0.1
    for (low, above), (high, below) in reversed(list(itertools.pairwise(found))):
        if above >= bar > below:
            share = (above - bar) / (above - below)
            return (1 - share) * math.log2(low) + share * math.log2(high)
    return math.log2(found[-1][0])


def _told(m: Measurement, rule: Callable[[float, float, float], bool]) -> float:
    """Return the share of points of the plane where a rule predicts correctly whether accuracy exceeds one half."""
    points = plane_of(m)
    told = sum(rule(b, w, m[f"scale@{b},{w}"]) == (m[f"accuracy@{b},{w}"] > 0.5) for b, w in points)
    return told / len(points)


_EITHER = ("small", "full")
_WORSE_OF = "the worse of tanh and ReLU"
_DEPTH = 30.0  # of networks on the plane, in runs that did not note it

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="kernel",
        statement="The mean kernel of random tanh networks at criticality follows the recursion of the book within "
        "10 % at layer 16 of width 64.",
        source="eq. 4.8 and section 5.3",
        reported={},
        experiment=ENSEMBLES,
        effect=lambda m: -abs(m["tanh-kernel@16"] - 1),
        effect_label="minus the relative deviation of the mean kernel from the recursion, layer 16",
        unit="relative deviation",
        at_least=-0.1,
        refutable_at=_EITHER,
    ),
    Claim(
        name="four-point",
        statement="The covariance of second moments of different neurons matches first order in 1/width within "
        "20 % if depth is a sixteenth of width, in critical ReLU, linear and tanh networks.",
        source="section 5.4: V / n K² = (5, 2, 2/3) L / n",
        reported={},
        experiment=ENSEMBLES,
        effect=lambda m: -max(abs(m[f"{n}-measured@4"] / m[f"{n}-first@4"] - 1) for n in ("relu", "linear", "tanh")),
        effect_label="minus the relative deviation of the four-point vertex from first order, layer 4, worst "
        "activation",
        unit="relative deviation",
        at_least=-0.2,
        refutable_at=_EITHER,
    ),
    Claim(
        name="breakdown",
        statement="The covariance of second moments of different neurons is at least 1.3 times the first order in "
        "1/width if depth is a quarter of width, in critical ReLU networks.",
        source="section 3.4 and epilogue: strong coupling as L / n grows",
        reported={},
        experiment=ENSEMBLES,
        effect=lambda m: m["relu-measured@16"] / m["relu-first@16"],
        effect_label="measured four-point vertex over first order in 1/width, layer 16",
        unit="times",
        at_least=1.3,
        controls={"at layer 2, where first order is exact": lambda m: m["relu-measured@2"] / m["relu-first@2"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="vertices",
        statement="Fluctuations of the tangent kernel, and its correlations with the signal, match first order in "
        "1/width within 25 % in tanh and GELU networks of width 32 or more.",
        source="chapter 8: V, D, F, B and A",
        reported={},
        experiment=FLUCTUATIONS,
        effect=lambda m: -_worst_vertex(m),
        effect_label="minus the relative deviation of a vertex from first order, worst of five vertices and two "
        "activations",
        unit="relative deviation",
        at_least=-0.25,
        refutable_at=_EITHER,
    ),
    Claim(
        name="half",
        statement="Plain tanh and ReLU networks of 30 layers or more classify digits at least 50 points more "
        "accurately with weights of critical variance than with half that variance.",
        source="chapter 5, by argument; the measurement is ours",
        reported={},
        experiment=TRAINING,
        effect=lambda m: _gain(m, {"tanh": 0.5, "relu": 0.5}),
        effect_label=f"test accuracy at the critical variance minus at half of it, {_WORSE_OF}",
        unit="accuracy",
        at_least=0.5,
    ),
    Claim(
        name="chaos",
        statement="Plain tanh networks of 30 layers or more classify digits at least 15 points more accurately with "
        "weights of critical variance than with four times that variance.",
        source="chapter 5, by argument; the measurement is ours",
        reported={},
        experiment=TRAINING,
        effect=lambda m: _gain(m, {"tanh": 4.0}),
        effect_label="test accuracy at the critical variance minus at four times that variance",
        unit="accuracy",
        at_least=0.15,
    ),
    Claim(
        name="sharp",
        statement="Plain tanh networks of 30 layers or more classify digits at least 5 points more accurately with "
        "weights of critical variance than with one and a half times that variance.",
        source="not claimed in the book, but a common reading of it",
        reported={},
        experiment=TRAINING,
        effect=lambda m: _gain(m, {"tanh": 1.5}),
        effect_label="test accuracy at the critical variance minus at one and a half times that variance",
        unit="accuracy",
        at_least=0.05,
    ),
    Claim(
        name="plane",
        statement="A deep tanh network trains if and only if its depth is less than six correlation scales, at 85 % or "
        "more of the points in the plane of weight and bias variance.",
        source="section 5.3; the factor six is Schoenholz et al.'s (2017)",
        reported={},
        experiment=PLANE,
        effect=lambda m: _told(m, lambda bias, weight, scale: 6 * scale > m.get("depth", _DEPTH)),
        effect_label="share of points where the rule predicts correctly whether accuracy exceeds one half",
        unit="of the points",
        at_least=0.85,
        controls={"by the variance of weights alone": lambda m: _told(m, lambda bias, weight, scale: weight >= 1)},
    ),
    Claim(
        name="cure",
        statement="Plain tanh networks of 50 layers or more classify digits at least 50 points more accurately after "
        "autoscale_ than in PyTorch's default initialization.",
        source="chapter 5: criticality; the rescaling by measurement is ours",
        reported={},
        experiment=CURES,
        effect=lambda m: m["autoscale@accuracy"] - m["as torch has it@accuracy"],
        effect_label="test accuracy after autoscale_ minus with PyTorch's default initialization",
        unit="accuracy",
        at_least=0.5,
        controls={"outputs rescaled alone": lambda m: m["outputs@accuracy"] - m["as torch has it@accuracy"]},
    ),
    Claim(
        name="equal-shares",
        statement="Learning rates divided by the predicted shares equalize the contributions of the biases of "
        "all layers to the tangent kernel of a deep tanh network: the spread over layers falls at least tenfold.",
        source="section 9.4: the equivalence principle",
        reported={},
        experiment=SHARES,
        effect=lambda m: math.log10(m["uniform@spread"] / m["rule@spread"]),
        effect_label="spread over layers under one learning rate against the spread under the rule",
        unit="orders of magnitude",
        at_least=1.0,
        refutable_at=_EITHER,
    ),
    Claim(
        name="aspect",
        statement="Critical networks at the optimal ratio of depth to width given in the book are within two points "
        "of the most accurate networks with as many weights, for ReLU and tanh.",
        source="appendix A: r* = 4 / ((20 + 3 n_L) ν)",
        reported={},
        experiment=ASPECT,
        effect=lambda m: _at_ratio(m, 1.0),
        effect_label=f"test accuracy at the predicted ratio minus the best of the scan, {_WORSE_OF}",
        unit="accuracy",
        at_least=-0.02,
        controls={"at sixteen times the predicted ratio": lambda m: _at_ratio(m, 16.0)},
    ),
    Claim(
        name="bears-depth",
        statement="Critical tanh networks reach at least twice the ratio of depth to width of ReLU networks with as "
        "many weights before they lose ten points of accuracy on handwritten digits.",
        source="section 5.4: ν = 5 for ReLU, 2/3 for tanh",
        reported={},
        experiment=ASPECT,
        effect=lambda m: _bearable(m, "tanh") - _bearable(m, "relu"),
        effect_label="ratio of depth to width at ten points lost, tanh over ReLU networks",
        unit="octaves",
        at_least=1.0,
    ),
)
