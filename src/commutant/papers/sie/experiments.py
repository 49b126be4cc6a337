"""Experiments: settings at each scale, data, and what each scale changes."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_floor, measure_views

VIEWS = Experiment(
    name="views",
    measure=measure_views,
    minutes=30.0,
    settings={
        "small": {
            "train": 800,
            "test": 200,
            "views": 16,
            "points": 4000,
            "size": 32,
            "width": 32,
            "steps": 1500,
            "batch": 128,
            "probe": 600,
        },
        "full": {
            "train": 10_000,
            "test": 2000,
            "views": 50,
            "points": 4000,
            "size": 32,
            "width": 64,
            "steps": 50_000,
            "batch": 1024,
            "probe": 5000,
        },
    },
    changes={
        "small": "Ten classes of objects made of simple bodies, 1000 of them in 16 views of 32 pixels with the latents "
        "of 3DIEBench, a small convolutional network of 128 features for 1500 steps, against 52 472 objects of "
        "ShapeNet in 50 views of 256 pixels and a ResNet-18 for 2000 epochs.",
        "full": "12 000 objects of ten generated classes in 50 views of 32 pixels and a wider network for 50 000 "
        "steps, in place of 3DIEBench and a ResNet-18.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=figures.views,
    figure_caption="Above: four objects, nine views each. Left: share of the variance of the turn between two views "
    "that a probe reads from either half of the features (zero for a constant; of VICReg two arbitrary halves). Right: "
    "how well the right view is found by the prediction, among all of its object. Dots are seeds.",
)


FLOOR = Experiment(
    name="floor",
    measure=measure_floor,
    minutes=4.0,
    settings={"small": {"steps": 5000}, "full": {"steps": 20_000}},
    changes={
        "small": "Beside the paper, which argues in words: 16 dimensions that do not move, 5000 steps.",
        "full": "Beside the paper, which argues in words: 16 dimensions that do not move, 20 000 steps.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=figures.floor,
    figure_caption="The least error of a predictor on features that ignore the turn, by the formula, and what training "
    "reaches with and without a bias.",
)
