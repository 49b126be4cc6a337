"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_construction, measure_decoder, measure_learning

_BITS = "random permutations, rows of fair bits"

CONSTRUCTION = Experiment(
    name="construction",
    measure=measure_construction,
    minutes=0.1,
    settings={
        "small": {"sizes": [2, 3, 6, 10], "test": 200, "beta": 200.0},
        "full": {"sizes": [2, 3, 6, 10, 20, 40], "test": 200, "beta": 200.0},
    },
    changes={"small": "Not an experiment of the paper, which proves it.", "full": "Not an experiment of the paper."},
    data={"small": "random permutations of 2 to 10 rows", "full": "random permutations of 2 to 40 rows"},
    seeds={"small": 14, "full": 14},
)
LEARNING = Experiment(
    name="learning",
    measure=measure_learning,
    minutes=4.0,
    settings={
        "small": {"d": 6, "steps": 2000, "batch_size": 256, "learning_rate": 0.02, "test": 4000},
        "full": {"d": 10, "steps": 30_000, "batch_size": 1024, "learning_rate": 0.02, "test": 4000},
    },
    changes={
        "small": "6 rows instead of 10, Adam instead of clipped gradient steps, 512 000 sequences.",
        "full": "Adam instead of clipped gradient steps; no zero rows before the input.",
    },
    data={"small": f"6 x 6, {_BITS}", "full": f"10 x 10, {_BITS}"},
    seeds={"small": 8, "full": 5},
    figure=figures.learning,
    figure_caption="Test error against the number of scratch tokens, and the least error of any causal network.",
)
DECODER = Experiment(
    name="decoder",
    measure=measure_decoder,
    minutes=7.0,
    settings={
        "small": {"d": 6, "letters": 8, "steps": 1500, "batch_size": 256, "learning_rate": 1e-3, "test": 2000},
        "full": {"d": 10, "letters": 26, "steps": 50_000, "batch_size": 512, "learning_rate": 3e-4, "test": 2000},
    },
    changes={
        "small": "Not in the paper: four layers with MLPs, norms and learned positions; 384 000 sequences.",
        "full": "Not in the paper: four layers with MLPs, norms and learned positions.",
    },
    data={"small": f"6 x 6, {_BITS}; strings of 8 letters", "full": f"10 x 10, {_BITS}; strings of 26 letters"},
    seeds={"small": 8, "full": 5},
)
