"""Experiments: settings at each scale, data, and differences from the paper."""

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
        "small": "Trains a small convolutional network with 128 features for 1500 steps on 1000 objects of ten "
        "classes, made of simple bodies, in 16 views of 32 pixels with the latents of 3DIEBench; the paper trains a "
        "ResNet-18 for 2000 epochs on 52 472 objects of ShapeNet in 50 views of 256 pixels.",
        "full": "Trains a wider network for 50 000 steps on 12 000 objects of ten generated classes in 50 views of 32 "
        "pixels, instead of a ResNet-18 on 3DIEBench.",
    },
    data={"small": "rendered views of generated objects", "full": "rendered views of generated objects"},
    seeds={"small": 3, "full": 3},
    figure=figures.views,
    figure_caption="Above: four objects, nine views each. Left: share of the variance of the rotation between two "
    "views that a probe explains from either half of the features (zero for a constant; for VICReg, two arbitrary "
    "halves). Right: mean reciprocal rank of the correct view, by the prediction, among all views of its object. Dots "
    "are seeds.",
)


FLOOR = Experiment(
    name="floor",
    measure=measure_floor,
    minutes=4.0,
    settings={"small": {"steps": 5000}, "full": {"steps": 20_000}},
    changes={
        "small": "Beyond the paper, which argues in words: trains predictors on 16 constant dimensions for 5000 steps.",
        "full": "Beyond the paper, which argues in words: trains predictors on 16 constant dimensions for 20 000 "
        "steps.",
    },
    data={"small": "random rotations", "full": "random rotations"},
    seeds={"small": 3, "full": 3},
    figure=figures.floor,
    figure_caption="Smallest error of a predictor on features that ignore the rotation, by the formula, and the error "
    "that training reaches with and without a bias.",
)
