"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from functools import partial

from ...data import images_unavailable
from ...evidence import Experiment
from .._shared.classifiers import IMAGES
from . import figures
from .measures import measure_matching

MATCHING = Experiment(
    name="matching",
    measure=measure_matching,
    minutes=0.75,
    settings={
        "small": {"data": "digits", "network": "mlp", "widths": [32, 128, 512], "steps": 440, "searched": [32, 128],
                  "search": 200},
        "full": {"data": "digits", "network": "mlp", "widths": [32, 128, 512, 2048], "steps": 2200,
                 "searched": [32, 128, 512], "search": 1000},
    },
    changes={
        "small": "Trains MLPs with three hidden layers of 32 to 512 units for 440 steps on 8 x 8 digits; the paper "
        "trains MLPs of 512 units, VGG11 and ResNet20 on MNIST, Fashion-MNIST and CIFAR-10.",
        "full": "Trains MLPs with three hidden layers of 32 to 2048 units for 2200 steps on 8 x 8 digits; the paper "
        "trains MLPs of 512 units, VGG11 and ResNet20 on MNIST, Fashion-MNIST and CIFAR-10.",
    },
    data=dict.fromkeys(("small", "full"), IMAGES["digits"]),
    seeds={"small": 5, "full": 10},
    figure=figures.matching,
    figure_caption="Above: medians over seeds. Left: test loss along the line between two networks, minus the straight "
    "line between their losses. Right: alignment of the singular directions whose singular value exceeds a share of "
    "the largest. Below: similarity (u_i . u_j)(v_i . v_j) of the twelve largest singular directions of the second "
    "layer, for the first seed; weight matching aligns the first few one by one.",
)  # fmt: skip


def _elsewhere(
    name: str, data: str, network: str, width: int, steps: dict[str, int], what: str, seeds: int, minutes: float
) -> Experiment:
    """Build the same experiment on data that must be in the data folder."""
    return Experiment(
        name=name,
        measure=measure_matching,
        minutes=minutes,
        settings={scale: {"data": data, "network": network, "widths": [width], "steps": count, "searched": [],
                          "search": 0} for scale, count in steps.items()},
        changes=dict.fromkeys(steps, f"Trains {what} in batches of 128 with Adam at 0.001."),
        data=dict.fromkeys(steps, IMAGES[data]),
        seeds=dict.fromkeys(steps, seeds),
        unavailable=partial(images_unavailable, data),
    )  # fmt: skip


MNIST = _elsewhere(
    "mnist", "mnist", "mlp", 512, {"small": 2400, "full": 14000}, "the paper's MLP of 3 x 512 units", 3, 1.5
)


FASHION = _elsewhere("fashion-mnist", "fashion-mnist", "mlp", 512, {"small": 2400, "full": 14000},
                     "the paper's MLP of 3 x 512 units", 3, 2.8)  # fmt: skip


CIFAR = _elsewhere("cifar", "cifar10-6k", "resnet", 16, {"small": 600, "full": 4000},
                   "a residual network of three blocks with 16 to 64 channels, on a tenth of CIFAR-10,",
                   3, 12.0)  # fmt: skip
