"""Experiments: settings at each scale, data, and what each scale changes."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_routes, measure_shapes

SHAPES = Experiment(
    name="shapes",
    measure=measure_shapes,
    minutes=6.6,
    settings={
        "small": {"train": 1000, "test": 400, "points": 96, "epochs": 25},
        "full": {"train": 40_000, "test": 4000, "points": 1024, "epochs": 100},
    },
    changes={
        "small": "Ten classes of objects made of simple bodies, 1000 clouds of 96 points, a small PointNet for 25 "
        "epochs; the paper's data could not be read.",
        "full": "Ten classes of objects made of simple bodies, 40 000 clouds of 1024 points; the paper's data could "
        "not be read.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=figures.shapes,
    figure_caption="Test accuracy of networks trained on objects turned about z (but for the one turned any way), as "
    "the test objects are moved (thin lines are seeds; dotted is chance).",
)


ROUTES = Experiment(
    name="routes",
    measure=measure_routes,
    minutes=4.6,
    settings={
        "small": {"cities": 10, "tests": 200, "steps": 1000},
        "full": {"cities": 12, "tests": 1000, "steps": 100_000},
    },
    changes={
        "small": "Ten cities, width 64, two layers and 1000 steps; the paper's setting could not be read.",
        "full": "Twelve cities, for which the shortest tours can be computed, and 100 000 steps; the paper's setting "
        "could not be read.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=figures.routes,
    figure_caption="Tours that are city for city the same after the map was moved, and in the legend how long they are "
    "(mean over seeds).",
)
