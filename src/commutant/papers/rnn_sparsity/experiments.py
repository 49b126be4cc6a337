"""Experiments: settings at each scale, data, and differences from the paper."""

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
        "small": "Trains for 20 epochs on 2276 strings of 13 to 30 letters whose labels cannot be told from length, "
        "ending or pairs of letters, and reads them at their true last letter. The thesis trains for 50 epochs on 18 "
        "750 strings, of which the last four letters decide 94 %, reads them after the padding, and retrains for up to "
        "ten epochs.",
        "full": "Uses as many strings and epochs as the thesis, but strings of equal length and ending, read at their "
        "true last letter.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 3, "full": 3},
    figure=figures.pruning,
    figure_caption="Accuracy right after pruning (lines) and after three epochs of retraining with the mask fixed "
    "(rings), median over seeds. Dotted: chance.",
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
        "small": "Trains 20 graphs per seed with 10 to 30 nodes for 120 steps, with masks that follow the gates; the "
        "thesis trains 200 graphs with 10 to 50 nodes for 15 epochs, with scrambled masks.",
        "full": "Uses masks that follow the gates, and strings of equal length and ending.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 3, "full": 3},
    figure=figures.structure,
    figure_caption="Each dot is a network wired by a random graph, over all seeds. As in the thesis, the number of "
    "sources is also the width of the embedding.",
)
