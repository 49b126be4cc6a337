"""The Principles of Deep Learning Theory: its claims, at each scale, with controls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from ..evidence import Claim, Experiment, Measurement, Paper
from ..theory import criticality, finite_width, kernel_flow, nonlinearity, optimal_ratio, plain_network
from . import _criticality_figures as draw_figure
from ._criticality_measures import (
    ASPECTS,
    VERTICES,
    measure_aspects,
    measure_cures,
    measure_ensembles,
    measure_plane,
    measure_shares,
    measure_training,
    measure_vertices,
)

ENSEMBLES = Experiment(
    name="ensembles",
    measure=measure_ensembles,
    minutes=0.3,
    settings={
        "small": {"width": 64, "depth": 16, "networks": 4000},
        "full": {"width": 64, "depth": 32, "networks": 1_000_000},
    },
    changes={
        "small": "4000 networks of width 64 and 16 layers, one input; the book gives no experiment.",
        "full": "A million networks of width 64 and 32 layers, one input; the book gives no experiment.",
    },
    data={"small": "one input", "full": "one input"},
    seeds={"small": 5, "full": 3},
    figure=draw_figure.ensembles,
    figure_caption="Left: the kernel at criticality by theory (lines), of random networks (dots), and how far one "
    "network is from it (bands: a standard deviation). Right: how much second moments of two neurons vary together, "
    "times the width.",
)

FLUCTUATIONS = Experiment(
    name="vertices",
    measure=measure_vertices,
    minutes=0.5,
    settings={
        "small": {"width": 32, "depth": 4, "networks": 20_000},
        "full": {"width": 128, "depth": 4, "networks": 2_000_000},
    },
    changes={
        "small": "20 000 networks of width 32; the book gives no experiment.",
        "full": "Two million networks of width 128; the book gives no experiment.",
    },
    data={"small": "one input", "full": "one input"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.vertices,
    figure_caption="Fluctuations of kernel and tangent kernel in random networks over what first order predicts. Dots "
    "are seeds; A has the largest next order.",
)

TRAINING = Experiment(
    name="training",
    measure=measure_training,
    minutes=3.0,
    settings={
        "small": {"width": 100, "depth": 30, "steps": 300, "rates": [0.001, 0.01, 0.1]},
        "full": {"width": 300, "depth": 50, "steps": 5000, "rates": [0.0001, 0.001, 0.01, 0.1]},
    },
    changes={
        "small": "30 plain layers of 100 units on scikit-learn's digits, 300 steps; the book gives no experiment.",
        "full": "50 plain layers of 300 units on scikit-learn's digits, 5000 steps; the book gives no experiment.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 5},
    figure=draw_figure.training,
    figure_caption="Test accuracy on digits of plain networks of 30 layers after 300 steps, at the best of three "
    "learning rates (thin lines are seeds).",
)

CURES = Experiment(
    name="cures",
    measure=measure_cures,
    minutes=2.0,
    settings={
        "small": {"width": 100, "depth": 50, "steps": 300, "rates": [0.001, 0.01, 0.1]},
        "full": {"width": 300, "depth": 100, "steps": 5000, "rates": [0.0001, 0.001, 0.01, 0.1]},
    },
    changes={
        "small": "50 plain layers of 100 units on scikit-learn's digits, 300 steps; the book gives no experiment.",
        "full": "100 plain layers of 300 units on scikit-learn's digits, 5000 steps; the book gives no experiment.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 5},
    figure=draw_figure.cures,
    figure_caption="Test accuracy on digits of a plain tanh network of 50 layers after 300 steps, at the best of three "
    "learning rates: as torch initialises it, with its outputs alone brought to unit size, and after either cure.",
)

PLANE = Experiment(
    name="plane",
    measure=measure_plane,
    minutes=3.0,
    settings={
        "small": {
            "width": 100,
            "depth": 30,
            "steps": 200,
            "rates": [0.01, 0.1],
            "biases": [0.0, 0.05, 0.2, 0.8],
            "weights": [0.4, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0],
        },
        "full": {
            "width": 300,
            "depth": 100,
            "steps": 5000,
            "rates": [0.001, 0.01, 0.1],
            "biases": [0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8],
            "weights": [0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0],
        },
    },
    changes={
        "small": "30 layers of 100 tanh units on scikit-learn's digits, 200 steps; the book gives no experiment.",
        "full": "100 layers of 300 tanh units on scikit-learn's digits, 5000 steps; the book gives no experiment.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.plane,
    figure_caption="Test accuracy of tanh networks of 30 layers over the plane of variances, and below it six times "
    "the "
    "layers over which the correlation of two inputs settles: how deep a network there should still train. Below: what "
    "a layer does to the correlation of two inputs at three of the points.",
)

SHARES = Experiment(
    name="shares",
    measure=measure_shares,
    minutes=0.1,
    settings={
        "small": {"width": 256, "depth": 50, "inputs": 4, "outputs": 8},
        "full": {"width": 1024, "depth": 50, "inputs": 16, "outputs": 16},
    },
    changes={
        "small": "Tanh, 50 layers of 256 units; the book argues by formula.",
        "full": "Tanh, 50 layers of 1024 units; the book argues by formula.",
    },
    data={"small": "normal inputs", "full": "normal inputs"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.shares,
    figure_caption="What the biases of each layer of a tanh network add to its tangent kernel, under one learning rate "
    "and under the rule that divides it by the predicted share (thin lines are seeds).",
)


ASPECT = Experiment(
    name="aspect",
    measure=measure_aspects,
    minutes=1.0,
    settings={
        "small": {
            "table": "digits",
            "weights": 40_000,
            "ratios": [0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0],
            "rates": [0.01, 0.03, 0.1],
            "steps": 300,
        },
        "full": {
            "table": "pendigits",
            "weights": 4_000_000,
            "ratios": [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28],
            "rates": [0.001, 0.003, 0.01, 0.03, 0.1],
            "steps": 20_000,
        },
    },
    changes={
        "small": "40 000 weights, 2 to 54 layers, on scikit-learn's digits, 300 steps; the book gives no experiment.",
        "full": "Four million weights, 5 to 187 layers, on UCI pendigits, 20 000 steps; the book gives no experiment.",
    },
    data={"small": "scikit-learn digits", "full": "UCI pendigits"},
    seeds={"small": 5, "full": 10},
    figure=draw_figure.aspects,
    figure_caption="Test accuracy on digits of plain critical networks of 40 000 weights, from wide and shallow to "
    "narrow and deep, after 300 steps at the best of three learning rates (thin lines are seeds).",
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
        found = {float(key.split("@")[1]): m[key] for key in m if key.startswith(f"{name}-accuracy@")}
        target = times * optimal_ratio(name, 10)
        gaps.append(found[min(found, key=lambda r: abs(math.log(r / target)))] - max(found.values()))
    return min(gaps)


def _bearable(m: Measurement, name: str) -> float:
    """The logarithm to base 2 of the ratio at which accuracy has fallen ten points below the best of the scan."""
    found = sorted((float(key.split("@")[1]), m[key]) for key in m if key.startswith(f"{name}-accuracy@"))
    bar = max(accuracy for _, accuracy in found) - 0.1
    for (low, above), (high, below) in reversed(list(itertools.pairwise(found))):
        if above >= bar > below:
            share = (above - bar) / (above - below)
            return (1 - share) * math.log2(low) + share * math.log2(high)
    return math.log2(found[-1][0])


def _told(m: Measurement, rule: Callable[[float, float, float], bool]) -> float:
    """Share of the points of the plane at which a rule says rightly whether accuracy exceeds one half."""
    rows = [key.split("@")[1] for key in m if key.startswith("accuracy@")]
    points = [(*(float(v) for v in row.split(",")), m[f"scale@{row}"], m[f"accuracy@{row}"] > 0.5) for row in rows]
    return sum(rule(bias, weight, scale) == trained for bias, weight, scale, trained in points) / len(points)


PAPER = Paper(
    slug="deep-learning-theory",
    title="The Principles of Deep Learning Theory",
    authors="Daniel A. Roberts, Sho Yaida, Boris Hanin",
    year=2022,
    venue="Cambridge University Press",
    link="https://arxiv.org/abs/2106.10165",
    room="theory",
    idea="What a deep network does at initialisation follows from recursions layer by layer. Tuned to a critical "
    "point of its activation, signals and gradients neither explode nor vanish; what is left grows with depth over "
    "width, the ratio that decides whether a network is Gaussian, learns, or is chaotic.",
    usage="""import torch
from torch import nn
from commutant.theory import critical_, criticality, optimal_ratio

print(criticality("silu").sentence)
net = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 10))
critical_(net)
print(optimal_ratio("silu", outputs=10))
""",
    subjects=(criticality, finite_width, kernel_flow, nonlinearity, plain_network),
    claims=(
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
            effect=lambda m: (
                -max(abs(m[f"{n}-measured@4"] / m[f"{n}-first@4"] - 1) for n in ("relu", "linear", "tanh"))
            ),
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
    ),
)
