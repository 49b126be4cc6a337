"""Experiments: settings at each scale, data, and what each scale changes."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_pruning, measure_structure

_DATA = "strings of the Reber grammar and near misses of equal length and ending, generated"


_STRINGS = {"small": {"pairs": 1264, "held_out": 126}, "full": {"pairs": 12_500, "held_out": 3_125}}


PRUNING = Experiment(
    name="pruning",
    measure=measure_pruning,
    minutes=12.0,
    settings={
        "small": {**_STRINGS["small"], "width": 50, "epochs": 20},
        "full": {**_STRINGS["full"], "width": 50, "epochs": 50},
    },
    changes={
        "small": "2276 training strings of 13 to 30 letters whose labels no length, ending or pair of letters tells, "
        "read at their true last letter, 20 epochs; the thesis has 18 750 strings, of which the last four letters "
        "alone decide 94 %, read behind the padding, 50 epochs, and retrains for up to ten.",
        "full": "As many strings and epochs as the thesis, of equal length and ending, read at their true last letter.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 3, "full": 3},
    figure=figures.pruning,
    figure_caption="Accuracy right after pruning (lines) and after three epochs with the mask fixed (rings), median "
    "over seeds. Dotted: chance.",
)


STRUCTURE = Experiment(
    name="structure",
    measure=measure_structure,
    minutes=4.9,
    settings={
        "small": {**_STRINGS["small"], "graphs": 10, "smallest": 10, "largest": 30, "steps": 120, "cell": "gru"},
        "full": {**_STRINGS["full"], "graphs": 100, "smallest": 10, "largest": 50, "steps": 2200, "cell": "gru"},
    },
    changes={
        "small": "20 graphs a seed with 10 to 30 nodes, gate masks that follow the gates, 120 steps; the thesis has "
        "200 graphs with 10 to 50 nodes, scrambled masks and 15 epochs.",
        "full": "Gate masks that follow the gates; strings of equal length and ending.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 3, "full": 3},
    figure=figures.structure,
    figure_caption="Each dot is a network wired by a random graph, over all seeds. The embedding is as wide as the "
    "graph has sources, as in the thesis, so that their number is also the width of the input.",
)
