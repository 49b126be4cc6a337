"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import (
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
        "small": "Draws 4000 networks of width 64 and 16 layers for one input; the book gives no experiment.",
        "full": "Draws a million networks of width 64 and 32 layers for one input; the book gives no experiment.",
    },
    data={"small": "a single input", "full": "a single input"},
    seeds={"small": 5, "full": 3},
    figure=figures.ensembles,
    figure_caption="Left: the kernel at criticality by theory (lines), its mean over random networks (dots) and the "
    "standard deviation of single networks (bands). Right: covariance of the second moments of two neurons, times the "
    "width.",
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
        "small": "Draws 20 000 networks of width 32; the book gives no experiment.",
        "full": "Draws two million networks of width 128; the book gives no experiment.",
    },
    data={"small": "a single input", "full": "a single input"},
    seeds={"small": 3, "full": 3},
    figure=figures.vertices,
    figure_caption="Fluctuations of kernel and tangent kernel in random networks over their prediction at first order. "
    "Dots are seeds; A has the largest correction at the next order.",
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
        "small": "Trains 30 plain layers of 100 units for 300 steps on scikit-learn's digits; the book gives no "
        "experiment.",
        "full": "Trains 50 plain layers of 300 units for 5000 steps on scikit-learn's digits; the book gives no "
        "experiment.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 5},
    figure=figures.training,
    figure_caption="Test accuracy of plain networks of 30 layers on digits after 300 steps, at the best of three "
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
        "small": "Trains 50 plain layers of 100 units for 300 steps on scikit-learn's digits; the book gives no "
        "experiment.",
        "full": "Trains 100 plain layers of 300 units for 5000 steps on scikit-learn's digits; the book gives no "
        "experiment.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 5},
    figure=figures.cures,
    figure_caption="Test accuracy of a plain tanh network of 50 layers on digits after 300 steps, at the best of three "
    "learning rates: in PyTorch's default initialization, with its outputs alone rescaled, and after either cure.",
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
        "small": "Trains 30 layers of 100 tanh units for 200 steps on scikit-learn's digits; the book gives no "
        "experiment.",
        "full": "Trains 100 layers of 300 tanh units for 5000 steps on scikit-learn's digits; the book gives no "
        "experiment.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 3},
    figure=figures.plane,
    figure_caption="Above: test accuracy of tanh networks of 30 layers over the plane of variances, and six times the "
    "number of layers over which the correlation of two inputs settles, the largest depth that should train. Below: "
    "the correlation of two inputs after one more layer, at three of the points.",
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
        "small": "Draws 50 tanh layers of 256 units; the book argues by formula.",
        "full": "Draws 50 tanh layers of 1024 units; the book argues by formula.",
    },
    data={"small": "random inputs", "full": "random inputs"},
    seeds={"small": 3, "full": 3},
    figure=figures.shares,
    figure_caption="Share of the tangent kernel of a tanh network that comes from the biases of each layer, under one "
    "learning rate and under the rule that divides it by the predicted share (thin lines are seeds).",
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
        "small": "Trains 40 000 weights in 2 to 54 layers for 300 steps on scikit-learn's digits; the book gives no "
        "experiment.",
        "full": "Trains four million weights in 5 to 187 layers for 20 000 steps on UCI pendigits; the book gives no "
        "experiment.",
    },
    data={"small": "scikit-learn digits", "full": "UCI pendigits"},
    seeds={"small": 5, "full": 10},
    figure=figures.aspects,
    figure_caption="Test accuracy of plain critical networks of 40 000 weights on digits, from wide and shallow to "
    "narrow and deep, after 300 steps at the best of three learning rates (thin lines are seeds).",
)
