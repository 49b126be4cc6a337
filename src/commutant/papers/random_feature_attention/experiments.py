"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import measure_heads, measure_targets

_UNREAD = "only the abstract of the paper could be read, so the settings are this library's."

TARGETS = Experiment(
    name="targets",
    measure=measure_targets,
    minutes=0.7,
    settings={
        "small": {"features": 8, "keys": 8, "heads": 300, "sizes": [300, 1000, 2000], "tests": 1000,
                  "trained_size": 1000, "width": 64, "steps": 1500},
        "full": {"features": 16, "keys": 16, "heads": 1000, "sizes": [300, 1000, 3000, 10_000], "tests": 2000,
                 "trained_size": 1000, "width": 128, "steps": 4000},
    },
    changes={
        "small": f"Tokens of 8 features, 8 keys, 300 heads and at most 2000 sets; {_UNREAD}",
        "full": f"Tokens of 16 features, 16 keys, 1000 heads and at most 10 000 sets; {_UNREAD}",
    },
    data={"small": "random unit tokens", "full": "random unit tokens"},
    seeds={"small": 14, "full": 14},
    figure=figures.targets,
    figure_caption="Relative test error against the number of training sets. Thin lines are seeds; crosses are a "
    "DeepSets network trained on 1000 sets.",
)  # fmt: skip
HEADS = Experiment(
    name="heads",
    measure=measure_heads,
    minutes=0.1,
    settings={
        "small": {"features": 8, "keys": 8, "sets": 60, "heads": [50, 200, 800, 3200], "draws": 32},
        "full": {"features": 16, "keys": 16, "sets": 200, "heads": [50, 200, 800, 3200], "draws": 32},
    },
    changes={"small": f"60 sets; {_UNREAD}", "full": f"200 sets; {_UNREAD}"},
    data={"small": "random unit tokens", "full": "random unit tokens"},
    seeds={"small": 14, "full": 14},
)
