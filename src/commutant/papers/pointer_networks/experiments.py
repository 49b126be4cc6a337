"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_hulls, measure_lengths, measure_tours, measure_triangulations

_TRAINED = {"width": 128, "steps": 1500, "batch_size": 128, "learning_rate": 2e-3, "warmup": 100, "test": 500}
_FULL = {"width": 256, "steps": 80_000, "batch_size": 128, "learning_rate": 1e-3, "warmup": 1000, "test": 1000}
_RECIPE = "Adam with a cosine schedule instead of SGD, a linear embedding of the points, greedy decoding"
_SMALL = f"{_RECIPE}, width 128, 192 000 examples, each seen once."
_LARGE = f"{_RECIPE}, 10 million examples, each seen once."
_POINTS = "uniform points in the unit square, exact labels"

HULLS = Experiment(
    name="hulls",
    measure=measure_hulls,
    minutes=12.0,
    settings={"small": _TRAINED | {"n": 10}, "full": _FULL | {"n": 50}},
    changes={"small": f"10 points instead of 50; {_SMALL}", "full": _LARGE},
    data={"small": f"10 {_POINTS}", "full": f"50 {_POINTS}"},
    seeds={"small": 6, "full": 3},
    figure=figures.hulls,
    figure_caption="Share of convex hulls of 10 points that are found exactly. Dots are seeds.",
)
LENGTHS = Experiment(
    name="lengths",
    measure=measure_lengths,
    minutes=8.0,
    settings={
        "small": _TRAINED | {"trained": [5, 10], "sizes": [5, 10, 15, 20, 30]},
        "full": _FULL | {"trained": [5, 50], "sizes": [5, 10, 50, 100, 200, 500]},
    },
    changes={"small": f"Trained on 5 to 10 points instead of 5 to 50; {_SMALL}", "full": _LARGE},
    data={"small": f"5 to 30 {_POINTS}", "full": f"5 to 500 {_POINTS}"},
    seeds={"small": 6, "full": 3},
    figure=figures.lengths,
    figure_caption="Share of exact hulls and covered area against the number of points; training used 5 to 10.",
)
TRIANGULATIONS = Experiment(
    name="triangulations",
    measure=measure_triangulations,
    minutes=11.0,
    settings={"small": _TRAINED | {"n": 5, "steps": 3000}, "full": _FULL | {"n": 10}},
    changes={"small": f"{_RECIPE}, width 128, 384 000 examples, each seen once.", "full": _LARGE},
    data={"small": f"5 {_POINTS}", "full": f"10 {_POINTS}"},
    seeds={"small": 6, "full": 3},
)
TOURS = Experiment(
    name="tours",
    measure=measure_tours,
    minutes=3.0,
    settings={
        "small": _TRAINED | {"trained": [5, 10], "sizes": [5, 10, 15], "beam": 10},
        "full": _FULL | {"trained": [5, 12], "sizes": [5, 10, 12], "beam": 10},
    },
    changes={
        "small": f"Trained on optimal tours of 5 to 10 cities; {_RECIPE}, width 128, 192 000 examples.",
        "full": f"Trained on optimal tours of 5 to 12 cities instead of 5 to 20; {_RECIPE}.",
    },
    data={"small": f"5 to 15 {_POINTS}", "full": f"5 to 12 {_POINTS}"},
    seeds={"small": 8, "full": 3},
    figure=figures.tours,
    figure_caption="Length of tours relative to the optimum. Dots are seeds; training used 5 to 10 cities.",
)
