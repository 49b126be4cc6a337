"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_population, measure_search, measure_ties

_NETWORKS = (
    "Images of 24 x 24 pixels instead of 128 x 128, an encoder of three layers, 96 features instead of 512, Adam "
    "without a schedule; every graph with several seeds, where the paper has one; no edge is counted twice, and every "
    "feature is used."
)

POPULATION = Experiment(
    name="population",
    measure=measure_population,
    minutes=1.7,
    settings={
        "small": {
            "graphs": 20, "steps": 100_000, "seeds": 5, "features": 96, "train": 128, "validation": 1000, "noise": 0.2,
            "learning_rate": 1e-3, "batch_size": 8, "epochs": [16, 40],
        },
        "full": {
            "graphs": 40, "steps": 300_000, "seeds": 10, "features": 512, "train": 128, "validation": 1200,
            "noise": 0.2, "learning_rate": 1e-3, "batch_size": 8, "epochs": [16, 40],
        },
    },
    changes={"small": _NETWORKS, "full": _NETWORKS.replace("96 features instead of 512", "512 features")},
    data={
        "small": "generated grids of 3 x 3 glyphs, 128 to train and 1000 to validate",
        "full": "generated grids of 3 x 3 glyphs, 128 to train and 1200 to validate",
    },
    seeds={"small": 10, "full": 5},
    figure=figures.population,
    figure_caption="Training and validation accuracy of each graph after 16 epochs, means over its seeds, for the "
    "first seed of the record.",
)  # fmt: skip
SEARCH = Experiment(
    name="search",
    measure=measure_search,
    minutes=0.7,
    settings={
        "small": {"ports": [4, 6, 8, 10], "applications": 1_000_000},
        "full": {"ports": [4, 6, 8, 10], "applications": 10_000_000},
    },
    changes={
        "small": "Uniform weights; limits count primitives instead of seconds; 4 to 10 ports instead of 10.",
        "full": "Uniform weights; limits count primitives instead of seconds; 4 to 10 ports instead of 10.",
    },
    data={"small": "none", "full": "none"},
    seeds={"small": 4, "full": 4},
)
TIES = Experiment(
    name="ties",
    measure=measure_ties,
    minutes=1.0,
    settings={
        "small": {"n": 8, "samples": 24, "noise": 0.3, "trials": 4, "max_cost": 7},
        "full": {"n": 12, "samples": 36, "noise": 0.3, "trials": 10, "max_cost": 8},
    },
    changes={"small": "Not in the paper, which searches for graphs.", "full": "Not in the paper."},
    data={
        "small": "24 samples of random linear maps of 8 points with a planted symmetry, noise 0.3 of the spread",
        "full": "36 samples of random linear maps of 12 points with a planted symmetry, noise 0.3 of the spread",
    },
    seeds={"small": 10, "full": 10},
    figure=figures.ties,
    figure_caption="Share of planted symmetries that are found, and of those that ridge weights reveal. Dots are "
    "seeds.",
)
