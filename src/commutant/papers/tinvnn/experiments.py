"""Experiments: settings at each scale, data, and differences from the paper."""

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
        "small": "Trains a small PointNet for 25 epochs on 1000 clouds of 96 points from ten classes of objects made "
        "of simple bodies; the paper's data could not be read.",
        "full": "Trains on 40 000 clouds of 1024 points from ten classes of objects made of simple bodies; the paper's "
        "data could not be read.",
    },
    data={"small": "generated objects", "full": "generated objects"},
    seeds={"small": 3, "full": 3},
    figure=figures.shapes,
    figure_caption='Test accuracy against the motion of the test objects. All networks but one ("rotated any way in '
    'training") are trained on objects rotated about z. Thin lines are seeds; dotted is chance.',
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
        "small": "Trains two layers of width 64 for 1000 steps on maps of ten cities; the paper's setting could not be "
        "read.",
        "full": "Trains for 100 000 steps on maps of twelve cities, whose shortest tours can be computed; the paper's "
        "setting could not be read.",
    },
    data={"small": "random maps", "full": "random maps"},
    seeds={"small": 3, "full": 3},
    figure=figures.routes,
    figure_caption="Share of tours that visit the same cities in the same order after the map is moved. The legend "
    "gives their length (mean over seeds).",
)
