"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from .._shared.classifiers import IMAGES
from . import figures
from .measures import measure_blocks, measure_counts, measure_digits, measure_invariance, measure_ranks

_BOTH = ("small", "full")
_BLOCKS = {"inputs": 4, "hidden": 12, "outputs": 2, "samples": 4000}

DIGITS = Experiment(
    name="digits",
    measure=measure_digits,
    minutes=0.3,
    settings={
        "small": {"data": "digits", "width": 48, "steps": 1260},
        "full": {"data": "digits", "width": 100, "steps": 1260},
    },
    changes={
        "small": "An MLP of 2 x 48 units on 8 x 8 digits instead of 2 x 100 units on CIFAR-10.",
        "full": "8 x 8 digits instead of CIFAR-10.",
    },
    data=dict.fromkeys(_BOTH, IMAGES["digits"]),
    seeds={"small": 10, "full": 10},
    figure=figures.digits,
    figure_caption="Interactions that keep the test accuracy within one point, by section. Dots are seeds.",
)
BLOCKS = Experiment(
    name="blocks",
    measure=measure_blocks,
    minutes=0.1,
    settings={"small": _BLOCKS, "full": _BLOCKS},
    changes=dict.fromkeys(
        _BOTH, "Two networks side by side behind a rotation of white inputs; the paper has blocks without rotation."
    ),
    data=dict.fromkeys(_BOTH, "white normal inputs, random weights"),
    seeds=dict.fromkeys(_BOTH, 14),
)
COUNTS = Experiment(
    name="counts",
    measure=measure_counts,
    minutes=0.1,
    settings={"small": {"samples": 4000}, "full": {"samples": 4000}},
    changes=dict.fromkeys(_BOTH, "Small random networks; the paper counts on paper."),
    data=dict.fromkeys(_BOTH, "normal inputs, random weights"),
    seeds=dict.fromkeys(_BOTH, 6),
)
INVARIANCE = Experiment(
    name="invariance",
    measure=measure_invariance,
    minutes=0.1,
    settings={"small": {"sizes": [8, 16, 32], "samples": 2000}, "full": {"sizes": [8, 16, 32], "samples": 2000}},
    changes=dict.fromkeys(_BOTH, "Random networks and random invertible maps between two of their layers."),
    data=dict.fromkeys(_BOTH, "normal inputs, random weights"),
    seeds=dict.fromkeys(_BOTH, 8),
)
RANKS = Experiment(
    name="ranks",
    measure=measure_ranks,
    minutes=0.1,
    settings={
        "small": {"data": "digits", "width": 48, "steps": 1260, "ranks": [3, 4, 6, 8]},
        "full": {"data": "mnist", "width": 100, "steps": 6000, "ranks": [3, 4, 6, 8]},
    },
    changes={
        "small": "Each linear layer of an MLP of 2 x 48 units on 8 x 8 digits is cut to the same rank.",
        "full": "Each linear layer of an MLP of 2 x 100 units on MNIST is cut to the same rank.",
    },
    data={"small": IMAGES["digits"], "full": IMAGES["mnist"]},
    seeds={"small": 10, "full": 10},
)
