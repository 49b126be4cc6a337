"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...data import graphs_unavailable, hard_graphs_unavailable
from ...evidence import Experiment
from . import figures
from .classification import measure_classification
from .measures import measure_counts, measure_four_cycles, measure_triangles
from .memory import measure_memory
from .separation import measure_separation

_TABLES = "the tables of the paper could not be read."
_REGULAR = {"small": "random 3-regular graphs of 10 to 16 nodes", "full": "random 3-regular graphs of 10 to 16 nodes"}
TU = ["PTC", "PROTEINS", "NCI1", "IMDBBINARY", "IMDBMULTI"]
FAMILIES = ["exp", "graph8c", "sr16", "sr25", "sr26", "sr28", "sr29"]

TRIANGLES = Experiment(
    name="triangles",
    measure=measure_triangles,
    minutes=0.1,
    settings={
        "small": {"train": 300, "test": 200, "epochs": 50, "batch_size": 50, "learning_rate": 3e-3, "channels": 16},
        "full": {"train": 3000, "test": 2000, "epochs": 50, "batch_size": 50, "learning_rate": 3e-3, "channels": 64},
    },
    changes={"small": f"The task is not in the paper; {_TABLES}", "full": f"The task is not in the paper; {_TABLES}"},
    data=_REGULAR,
    seeds={"small": 14, "full": 14},
)
FOUR_CYCLES = Experiment(
    name="four-cycles",
    measure=measure_four_cycles,
    minutes=0.8,
    settings=TRIANGLES.settings,
    changes=TRIANGLES.changes,
    data={scale: f"{words} without triangles" for scale, words in _REGULAR.items()},
    seeds={"small": 14, "full": 14},
    figure=figures.four_cycles,
    figure_caption="Test accuracy of networks trained for 50 epochs. Dots are seeds.",
)
COUNTS = Experiment(
    name="counts",
    measure=measure_counts,
    minutes=0.7,
    settings={
        "small": {"train": 600, "test": 300, "epochs": 60, "batch_size": 50, "learning_rate": 3e-3, "channels": 16},
        "full": {"train": 3000, "test": 2000, "epochs": 200, "batch_size": 50, "learning_rate": 2e-3, "channels": 64},
    },
    changes=TRIANGLES.changes,
    data=_REGULAR,
    seeds={"small": 14, "full": 14},
)


def _no_families(data_dir: str | None) -> str | None:
    return next((why for name in FAMILIES if (why := hard_graphs_unavailable(name, data_dir))), None)


SEPARATION = Experiment(
    name="separation",
    measure=measure_separation,
    minutes=1.0,
    settings={"small": {"families": FAMILIES}, "full": {"families": FAMILIES}},
    changes={
        "small": "Random weights, float64; the paper does not use these families.",
        "full": "Random weights, float64; the paper does not use these families.",
    },
    data={
        "small": "EXP, all 8-node graphs, strongly regular graphs",
        "full": "EXP, all 8-node graphs, strongly regular graphs",
    },
    seeds={"small": 14, "full": 14},
    unavailable=_no_families,
)
MEMORY = Experiment(
    name="memory",
    measure=measure_memory,
    minutes=0.1,
    settings={
        "small": {"sizes": [100, 200, 400, 1000, 10_000], "global_sizes": [100, 200, 400]},
        "full": {"sizes": [100, 200, 400, 1000, 10_000, 100_000], "global_sizes": [100, 200, 400, 1000, 2000]},
    },
    changes={
        "small": f"Two layers with 16 channels on random 3-regular graphs of at most 10 000 nodes; {_TABLES}",
        "full": f"Two layers with 16 channels on random 3-regular graphs; {_TABLES}",
    },
    data={"small": "random 3-regular graphs", "full": "random 3-regular graphs"},
    seeds={"small": 14, "full": 14},
    figure=figures.memory,
    figure_caption="Bytes that autograd keeps for the backward pass of two layers, against the number of nodes.",
)


CLASSIFICATION = Experiment(
    name="classification",
    measure=measure_classification,
    minutes=2.7,
    settings={
        "small": {"data": ["MUTAG"], "folds": 10, "epochs": 50, "averaged": 10, "batch_size": 16,
                  "learning_rate": 1.5e-3, "parameters": 30_000},
        "full": {"data": ["MUTAG"], "folds": 10, "epochs": 50, "averaged": 10, "batch_size": 16,
                 "learning_rate": 1.5e-3, "parameters": 200_000},
    },
    changes={
        "small": f"30 000 parameters and one setting for all networks; {_TABLES}",
        "full": f"One setting for all networks; {_TABLES}",
    },
    data={"small": "MUTAG with the GIN folds", "full": "MUTAG with the GIN folds"},
    seeds={"small": 14, "full": 14},
    unavailable=lambda data_dir: graphs_unavailable("MUTAG", data_dir),
)  # fmt: skip
COLLECTION = Experiment(
    name="collection",
    measure=measure_classification,
    minutes=11.0,
    settings={
        "small": {"data": TU, "folds": 1, "epochs": 30, "averaged": 10, "batch_size": 16, "learning_rate": 1.5e-3,
                  "parameters": 30_000},
        "full": {"data": TU, "folds": 10, "epochs": 50, "averaged": 10, "batch_size": 16, "learning_rate": 1.5e-3,
                 "parameters": 200_000},
    },
    changes={
        "small": f"30 000 parameters, 30 epochs and one setting for all data sets and networks; {_TABLES}",
        "full": f"One setting for all data sets and networks; {_TABLES}",
    },
    data={
        "small": "five TU data sets, a seed is one of the ten GIN folds; IMDB without features of nodes",
        "full": "five TU data sets with the GIN folds; IMDB without features of nodes",
    },
    seeds={"small": 10, "full": 10},
    unavailable=lambda data_dir: next((why for name in TU if (why := graphs_unavailable(name, data_dir))), None),
    figure=figures.collection,
    figure_caption="Test accuracy on five TU data sets, mean of the last ten epochs. Dots are folds.",
)  # fmt: skip
