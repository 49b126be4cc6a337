"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from functools import partial

from ...data import images_unavailable
from ...evidence import Experiment
from .._shared.classifiers import IMAGES
from . import figures
from .measures import measure_merging

MERGING = Experiment(
    name="merging",
    measure=measure_merging,
    minutes=0.21,
    settings={
        "small": {"data": "digits", "network": "mlp", "widths": [32, 64, 128, 256], "steps": 880},
        "full": {"data": "digits", "network": "mlp", "widths": [32, 64, 128, 256, 512, 1024], "steps": 3000},
    },
    changes={
        "small": "Trains MLPs with two hidden layers of 32 to 256 units for 880 steps of Adam at 0.001 on 8 x 8 "
        "digits; the paper trains VGG and ResNet on CIFAR-10 and uses pretrained ones on ImageNet.",
        "full": "Trains MLPs with two hidden layers of 32 to 1024 units for 3000 steps on 8 x 8 digits; the paper "
        "trains VGG and ResNet on CIFAR-10 and uses pretrained ones on ImageNet.",
    },
    data=dict.fromkeys(("small", "full"), IMAGES["digits"]),
    seeds={"small": 5, "full": 10},
    figure=figures.merging,
    figure_caption="Left: test accuracy against the share of parameters kept (256 units per layer, medians over "
    "seeds); pruning keeps the widths that the paper's rule chose. Middle: share kept when accuracy has fallen by one "
    "point, against the width. Right: merges of the first layer of 32 units for the first seed; the height is the "
    "squared distance relative to the largest.",
)


def _elsewhere(name: str, data: str, network: str, width: int, steps: int, minutes: float, what: str) -> Experiment:
    """Build the same experiment on data that must be in the data folder."""
    settings = {"data": data, "network": network, "widths": [width], "steps": steps}
    return Experiment(
        name=name,
        measure=measure_merging,
        minutes=minutes,
        settings={"small": settings, "full": {**settings, "steps": 5 * steps}},
        changes=dict.fromkeys(("small", "full"), f"Trains {what} with Adam at 0.001."),
        data=dict.fromkeys(("small", "full"), IMAGES[data]),
        seeds={"small": 3, "full": 5},
        unavailable=partial(images_unavailable, data),
    )


FASHION = _elsewhere("fashion-mnist", "fashion-mnist", "mlp", 512, 2400, 5.8, "an MLP of 2 x 512 units")


CIFAR = _elsewhere(
    "cifar", "cifar10-6k", "vgg", 32, 800, 32.0, "four convolutions with batch norm on a tenth of CIFAR-10"
)
