"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_learning, measure_regime

LEARNING = Experiment(
    name="learning",
    measure=measure_learning,
    minutes=0.3,
    settings={
        "small": {"ks": [5, 8], "width": 2048},
        "full": {"ks": [5, 8, 10, 12], "width": 50_000},
    },
    changes={
        "small": "Trains networks of 2048 hidden units on 5 and 8 coordinates and tests all inputs; the paper has 50 "
        "000 units, up to 30 coordinates and 1000 inputs with two ones.",
        "full": "Tests all inputs of up to 12 coordinates; the paper tests 1000 inputs with two ones, of up to 30.",
    },
    data={"small": "binary inputs", "full": "binary inputs"},
    seeds={"small": 14, "full": 14},
    figure=figures.learning,
    figure_caption="Share of nonzero binary inputs with all bits correct against the number of trained networks that "
    "are averaged, by the rule that rounds averages to bits (thin lines are seeds).",
)


REGIME = Experiment(
    name="regime",
    measure=measure_regime,
    minutes=0.6,
    settings={
        "small": {"k": 8, "width": 4096, "models": {"standard": 160, "ntk": 480}},
        "full": {"k": 30, "width": 50_000, "models": {"standard": 400, "ntk": 1500}},
    },
    changes={
        "small": "Trains 4096 hidden units on 8 coordinates, where the paper has 50 000 and up to 30; tests all inputs "
        "with two ones.",
        "full": "Tests all inputs with two ones instead of 1000 drawn with repetition.",
    },
    data={"small": "binary inputs with two ones", "full": "binary inputs with two ones"},
    seeds={"small": 3, "full": 10},
    figure=figures.regime,
    figure_caption="Number of networks needed, as measured and as the limit law predicts. Dots are seeds.",
)
