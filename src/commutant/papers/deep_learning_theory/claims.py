"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from ...evidence import Claim, Measurement, series
from ...theory import optimal_ratio
from .experiments import ASPECT, CURES, ENSEMBLES, FLUCTUATIONS, PLANE, SHARES, TRAINING
from .measures import (
    ASPECTS,
    VERTICES,
    plane_of,
)


def _worst_vertex(m: Measurement) -> float:
    """The largest relative deviation from first order, noise included."""
    rows = [f"{name}-{vertex}" for name in ("tanh", "gelu") for vertex in VERTICES]
    return max(abs(m[f"{row}@measured"] / m[f"{row}@theory"] - 1) for row in rows)


def _gain(m: Measurement, other: dict[str, float]) -> float:
    """Accuracy at criticality above that at another variance, the worse of the activations named."""
    return min(m[f"{name}-1.0@accuracy"] - m[f"{name}-{scale}@accuracy"] for name, scale in other.items())


def _at_ratio(m: Measurement, times: float) -> float:
    """Accuracy at the best ratio by theory, times a factor, below the best of the scan; the worse of two activations.

    Read off at the nearest ratio of the scan.
    """
    gaps = []
    for name in ASPECTS:
        found = series(m, f"{name}-accuracy")
        target = times * optimal_ratio(name, 10)
        gaps.append(found[min(found, key=lambda r: abs(math.log(r / target)))] - max(found.values()))
    return min(gaps)


def _bearable(m: Measurement, name: str) -> float:
    """The logarithm to base 2 of the ratio at which accuracy has fallen ten points below the best of the scan."""
    found = list(series(m, f"{name}-accuracy").items())
    bar = max(accuracy for _, accuracy in found) - 0.1
    for (low, above), (high, below) in reversed(list(itertools.pairwise(found))):
        if above >= bar > below:
            share = (above - bar) / (above - below)
            return (1 - share) * math.log2(low) + share * math.log2(high)
    return math.log2(found[-1][0])


def _told(m: Measurement, rule: Callable[[float, float, float], bool]) -> float:
    """Share of the points of the plane at which a rule says rightly whether accuracy exceeds one half."""
    points = plane_of(m)
    told = sum(rule(b, w, m[f"scale@{b},{w}"]) == (m[f"accuracy@{b},{w}"] > 0.5) for b, w in points)
    return told / len(points)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="kernel",
        statement="The mean kernel of random tanh networks at criticality falls with depth as the recursion says, "
        "within a tenth at layer 16 of width 64.",
        source="eq. 4.8 and section 5.3",
        reported={},
        experiment=ENSEMBLES,
        effect=lambda m: -abs(m["tanh-kernel@16"] - 1),
        effect_label="minus the deviation from the recursion at layer 16",
        at_least=-0.1,
    ),
    Claim(
        name="four-point",
        statement="Second moments of different neurons vary together as first order in 1/width says, within a "
        "fifth where depth is a sixteenth of width, for all three universal constants.",
        source="section 5.4: V / n K² = (5, 2, 2/3) L / n",
        reported={},
        experiment=ENSEMBLES,
        effect=lambda m: -max(abs(m[f"{n}-measured@4"] / m[f"{n}-first@4"] - 1) for n in ("relu", "linear", "tanh")),
        effect_label="minus the largest relative deviation at layer 4",
        at_least=-0.2,
    ),
    Claim(
        name="breakdown",
        statement="Where depth is a quarter of width first order is no longer enough: ReLU networks vary 1.3 times "
        "as much.",
        source="section 3.4 and epilogue: strong coupling as L / n grows",
        reported={},
        experiment=ENSEMBLES,
        effect=lambda m: m["relu-measured@16"] / m["relu-first@16"],
        effect_label="measured over first order at layer 16",
        at_least=1.3,
        controls={"at layer 2, where first order is exact": lambda m: m["relu-measured@2"] / m["relu-first@2"]},
    ),
    Claim(
        name="vertices",
        statement="Fluctuations of the tangent kernel, and its correlations with the signal, are those of first "
        "order in 1/width within a quarter at width 32, for tanh and GELU.",
        source="chapter 8: V, D, F, B and A",
        reported={},
        experiment=FLUCTUATIONS,
        effect=lambda m: -_worst_vertex(m),
        effect_label="minus the worst relative deviation",
        at_least=-0.25,
    ),
    Claim(
        name="half",
        statement="A plain network of 30 layers at criticality trains where half the variance of weights does "
        "not: 50 points of accuracy more.",
        source="chapter 5, argued; a sheet of measurements of our own",
        reported={},
        experiment=TRAINING,
        effect=lambda m: _gain(m, {"tanh": 0.5, "relu": 0.5}),
        effect_label="accuracy at criticality above half the variance, the worse of tanh and ReLU",
        at_least=0.5,
    ),
    Claim(
        name="chaos",
        statement="It trains better than well into the chaotic phase, by 15 points at four times the variance for "
        "tanh.",
        source="chapter 5, argued; a sheet of measurements of our own",
        reported={},
        experiment=TRAINING,
        effect=lambda m: _gain(m, {"tanh": 4.0}),
        effect_label="accuracy at criticality above four times the variance",
        at_least=0.15,
    ),
    Claim(
        name="sharp",
        statement="The optimum is sharp: one and a half times the critical variance costs five points.",
        source="not claimed in the book; a reading of it that is common",
        reported={},
        experiment=TRAINING,
        effect=lambda m: _gain(m, {"tanh": 1.5}),
        effect_label="accuracy at criticality above one and a half times the variance",
        at_least=0.05,
    ),
    Claim(
        name="plane",
        statement="Where in the plane of variances a deep tanh network trains is where its depth is less than six "
        "correlation scales: right for 85 % of the points.",
        source="section 5.3; the factor six is Schoenholz et al.'s (2017)",
        reported={},
        experiment=PLANE,
        effect=lambda m: _told(m, lambda bias, weight, scale: 6 * scale > 30),
        effect_label="points of the plane that the rule tells rightly",
        at_least=0.85,
        controls={"by the variance of weights alone": lambda m: _told(m, lambda bias, weight, scale: weight >= 1)},
    ),
    Claim(
        name="cure",
        statement="A plain network of 50 tanh layers, which does not train as torch initialises it, does after "
        "autoscale_: 50 points of accuracy more. Rescaling its outputs alone is not enough.",
        source="chapter 5: criticality; the measured form of it is ours",
        reported={},
        experiment=CURES,
        effect=lambda m: m["autoscale@accuracy"] - m["as torch has it@accuracy"],
        effect_label="accuracy after autoscale_ above that before",
        at_least=0.5,
        controls={"outputs rescaled alone": lambda m: m["outputs@accuracy"] - m["as torch has it@accuracy"]},
    ),
    Claim(
        name="equal-shares",
        statement="Under one learning rate the biases of the layers of a deep tanh network add very differently "
        "to the tangent kernel; divided by the predicted share they add alike: the spread falls tenfold.",
        source="section 9.4: the equivalence principle",
        reported={},
        experiment=SHARES,
        effect=lambda m: math.log10(m["uniform@spread"] / m["rule@spread"]),
        effect_label="orders of magnitude by which the rule narrows the spread over layers",
        at_least=1.0,
    ),
    Claim(
        name="aspect",
        statement="Of critical networks with as many weights, those of the depth over width that the book calls "
        "best come within two points of the best of a scan, for ReLU and for tanh.",
        source="appendix A: r* = 4 / ((20 + 3 n_L) ν)",
        reported={},
        experiment=ASPECT,
        effect=lambda m: _at_ratio(m, 1.0),
        effect_label="accuracy at r* minus the best of the scan, the worse of two",
        at_least=-0.02,
        controls={"at sixteen times that ratio": lambda m: _at_ratio(m, 16.0)},
    ),
    Claim(
        name="bears-depth",
        statement="Tanh networks, whose interactions grow 7.5 times slower with depth, bear at least twice the "
        "depth over width of ReLU networks before they lose ten points.",
        source="section 5.4: ν = 5 for ReLU, 2/3 for tanh",
        reported={},
        experiment=ASPECT,
        effect=lambda m: _bearable(m, "tanh") - _bearable(m, "relu"),
        effect_label="octaves of depth over width",
        at_least=1.0,
    ),
)
