"""Experiments: settings at each scale, data, and what each scale changes."""

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
        "small": "4000 networks of width 64 and 16 layers, one input; the book gives no experiment.",
        "full": "A million networks of width 64 and 32 layers, one input; the book gives no experiment.",
    },
    data={"small": "one input", "full": "one input"},
    seeds={"small": 5, "full": 3},
    figure=figures.ensembles,
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
    figure=figures.vertices,
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
    figure=figures.training,
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
    figure=figures.cures,
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
    figure=figures.plane,
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
    figure=figures.shares,
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
    figure=figures.aspects,
    figure_caption="Test accuracy on digits of plain critical networks of 40 000 weights, from wide and shallow to "
    "narrow and deep, after 300 steps at the best of three learning rates (thin lines are seeds).",
)
