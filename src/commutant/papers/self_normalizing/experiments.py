"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...data import uci_unavailable
from ...evidence import Experiment
from . import figures
from .measures import measure_depths, measure_moments, measure_very_deep
from .ranks import measure_ranks

_SMALL = ("digits", "breast-cancer", "waveform", "ringnorm")


_FULL = ("spambase", "statlog-landsat", "statlog-image", "optical", "letter", "magic", "waveform-noise", "semeion")


MOMENTS = Experiment(
    name="moments",
    measure=measure_moments,
    minutes=0.2,
    settings={
        "small": {"width": 512, "depth": 32, "inputs": 1024},
        "full": {"width": 4096, "depth": 128, "inputs": 8192},
    },
    changes={
        "small": "Measures 32 random layers of 512 units on standard normal inputs.",
        "full": "Measures 128 random layers of 4096 units on standard normal inputs.",
    },
    data={"small": "random inputs", "full": "random inputs"},
    seeds={"small": 5, "full": 3},
    figure=figures.moments,
    figure_caption="Variance of SELU's activations by layer under the initialization of the paper and under two common "
    "ones, and squared gradients from the last layer back.",
)


DEPTHS = Experiment(
    name="depths",
    measure=measure_depths,
    minutes=4.0,
    settings={
        "small": {"tables": list(_SMALL), "depths": [4, 16, 32], "width": 64, "steps": 400, "rates": [0.01, 0.1]},
        "full": {
            "tables": list(_FULL),
            "depths": [2, 4, 8, 16, 32],
            "width": 256,
            "steps": 20_000,
            "rates": [0.01, 0.1, 1.0],
        },
    },
    changes={
        "small": "Trains width 64 for 400 steps at two learning rates, on four tables instead of 121.",
        "full": "Trains width 256 for 20 000 steps at three learning rates, on eight tables instead of 121.",
    },
    data={
        "small": "scikit-learn digits and breast cancer, 2000 rows each of Breiman's waveform and ringnorm",
        "full": "eight UCI tables",
    },
    seeds={"small": 3, "full": 5},
    figure=figures.depths,
    figure_caption="Test accuracy of plain networks of 64 units, mean over four tables, after 400 steps at the better "
    "of two learning rates (thin lines are seeds).",
)


VERY_DEEP = Experiment(
    name="very-deep",
    measure=measure_very_deep,
    minutes=3.0,
    settings={
        "small": {"depth": 200, "width": 64, "steps": 200, "rates": [0.001, 0.01, 0.1]},
        "full": {"depth": 1000, "width": 256, "steps": 5000, "rates": [0.0001, 0.001, 0.01, 0.1]},
    },
    changes={
        "small": "Trains 200 layers of 64 units for 200 steps on scikit-learn's digits; not in the paper.",
        "full": "Trains 1000 layers of 256 units for 5000 steps on scikit-learn's digits; not in the paper.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 3},
    figure=figures.very_deep,
    figure_caption="Test accuracy of plain networks of 200 layers after 200 steps, at the best of three learning "
    "rates. The weight of the skip lets squared gradients grow by a factor of e in total.",
)


RANKS = Experiment(
    name="ranks",
    measure=measure_ranks,
    minutes=25.0,
    settings={
        "small": {
            "rows": 2500,
            "depths": [2, 8],
            "width": 128,
            "steps": 200,
            "rates": [0.01, 0.1],
            "adamw_rates": [0.001, 0.01],
            "trees": 100,
        },
        "full": {
            "rows": 200_000,
            "depths": [2, 3, 4, 8, 16, 32],
            "width": 256,
            "steps": 20_000,
            "rates": [0.01, 0.1, 1.0],
            "adamw_rates": [0.0003, 0.001, 0.003],
            "trees": 300,
        },
    },
    changes={
        "small": "Ranks four networks of seven on 117 tables of 121, with at most 2500 rows of each, 200 steps, two "
        "depths and two learning rates instead of 72 settings; layer norm under AdamW and gradient boosting are ours.",
        "full": "Ranks four networks of seven on 117 tables of 121, with 20 000 steps, six depths and three learning "
        "rates; layer norm under AdamW and gradient boosting are ours.",
    },
    data={"small": "UCI tables of Fernandez-Delgado et al.", "full": "UCI tables of Fernandez-Delgado et al."},
    seeds={"small": 3, "full": 5},
    unavailable=uci_unavailable,
    figure=figures.ranks,
    figure_caption="Mean rank over the tables by test accuracy; 1 is best. Dots are seeds, each with its own splits.",
)
