"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...data import images_unavailable
from ...evidence import Experiment
from . import figures
from .measures import (
    measure_anomalies,
    measure_cancellation,
    measure_growth,
    measure_images,
    measure_panels,
    measure_planted,
)

_SAME = "mean-field inference from a constant start instead of an amortized network, Adam with learning rate 1e-3, and "
_DIGITS = {
    "small": "scikit-learn digits with pixel noise, 2000 sets of 8 to train on and 500 to test on",
    "full": "scikit-learn digits with pixel noise, 10 000 sets of 8 to train on and 1000 to test on",
}
_TRAINED = {"width": 64, "samples": 5, "batch_size": 64, "learning_rate": 1e-3}
ANOMALIES = Experiment(
    name="anomalies",
    measure=measure_anomalies,
    minutes=2.6,
    settings={
        "small": _TRAINED | {"sets": [2000, 500, 500], "noise": 0.4, "start": 0.25, "epochs": 20},
        "full": _TRAINED | {"sets": [10_000, 1000, 1000], "noise": 0.4, "start": 0.25, "epochs": 60},
    },
    changes={
        "small": f"Digits instead of faces and photographs, {_SAME}20 epochs.",
        "full": f"Digits instead of faces and photographs, {_SAME}60 epochs.",
    },
    data=_DIGITS,
    seeds={"small": 14, "full": 14},
    figure=figures.anomalies,
    figure_caption="Mean Jaccard coefficient on test sets, with the true size of each subset. Dots are seeds.",
)
CANCELLATION = Experiment(
    name="cancellation",
    measure=measure_cancellation,
    minutes=0.1,
    settings={
        "small": _TRAINED | {"sets": [300, 100, 200], "noise": 0.4, "start": 0.25, "epochs": 3},
        "full": _TRAINED | {"sets": [2000, 500, 500], "noise": 0.4, "start": 0.25, "epochs": 20},
    },
    changes={"small": "Not in the paper; 300 sets, 3 epochs.", "full": "Not in the paper; 2000 sets, 20 epochs."},
    data={
        "small": "scikit-learn digits with pixel noise, 300 sets of 8",
        "full": "scikit-learn digits with pixel noise, 2000 sets of 8",
    },
    seeds={"small": 4, "full": 4},
)
GROWTH = Experiment(
    name="growth",
    measure=measure_growth,
    minutes=0.8,
    settings={
        "small": ANOMALIES.settings["small"] | {"sizes": [8, 16, 32, 64]},
        "full": ANOMALIES.settings["full"] | {"sizes": [8, 16, 32, 64, 128, 256]},
    },
    changes={
        "small": f"Digits instead of Two-Moons, training on sets of 8 instead of 100, {_SAME}20 epochs.",
        "full": f"Digits instead of Two-Moons, training on sets of 8 instead of 100, {_SAME}60 epochs.",
    },
    data=_DIGITS,
    seeds={"small": 8, "full": 8},
    figure=figures.growth,
    figure_caption="Mean Jaccard coefficient against the size of test ground sets; training used sets of 8. Thin lines "
    "are seeds.",
)
PLANTED = Experiment(
    name="planted",
    measure=measure_planted,
    minutes=2.0,
    settings={
        "small": _TRAINED | {"sets": [1000, 200, 500], "size": 100, "chosen": 10, "starts": [0.5, 0.1],
                             "batch_size": 128, "epochs": 10},
        "full": _TRAINED | {"sets": [1000, 1000, 1000], "size": 100, "chosen": 10, "starts": [0.5, 0.1],
                            "batch_size": 128, "epochs": 100, "learning_rate": 1e-4},
    },
    changes={
        "small": f"200 validation and 500 test sets, {_SAME}10 epochs.",
        "full": "Mean-field inference from a constant start instead of an amortized network; no early stop.",
    },
    data={"small": "points of two clusters, generated", "full": "points of two clusters, generated"},
    seeds={"small": 8, "full": 8},
)  # fmt: skip


MNIST = Experiment(
    name="mnist",
    measure=measure_images,
    minutes=1.2,
    settings={
        "small": _TRAINED | {"data": "mnist", "sets": [2000, 500, 500], "start": 0.25, "epochs": 8},
        "full": _TRAINED | {"data": "mnist", "sets": [10_000, 1000, 1000], "start": 0.25, "epochs": 100},
    },
    changes={
        "small": f"MNIST instead of CIFAR-10, a smaller encoder, 2000 sets, {_SAME}8 epochs.",
        "full": f"MNIST instead of CIFAR-10, a smaller encoder, {_SAME}100 epochs.",
    },
    data={"small": "MNIST, 2000 sets of 8 to train on", "full": "MNIST, 10 000 sets of 8 to train on"},
    seeds={"small": 8, "full": 8},
    unavailable=lambda data_dir: images_unavailable("mnist", data_dir),
)
CIFAR = Experiment(
    name="cifar",
    measure=measure_images,
    minutes=3.8,
    settings={
        "small": _TRAINED | {"data": "cifar10-6k", "sets": [2000, 500, 500], "start": 0.25, "epochs": 30},
        "full": _TRAINED | {"data": "cifar10", "sets": [10_000, 1000, 1000], "start": 0.25, "epochs": 100},
    },
    changes={
        "small": f"A subset of CIFAR-10, a smaller encoder, 2000 sets, {_SAME}30 epochs.",
        "full": f"A smaller encoder, {_SAME}100 epochs.",
    },
    data={
        "small": "CIFAR-10, 5000 images to train on, 2000 sets of 8",
        "full": "CIFAR-10, 10 000 sets of 8 to train on",
    },
    seeds={"small": 8, "full": 8},
    unavailable=lambda data_dir: images_unavailable("cifar10-6k", data_dir),
)
PANELS = Experiment(
    name="panels",
    measure=measure_panels,
    minutes=0.7,
    settings={
        "small": _TRAINED | {"data": "wine", "sets": [2000, 500, 500], "size": 12, "chosen": 5, "start": 0.4,
                             "epochs": 20},
        "full": _TRAINED | {"data": "wine", "sets": [20_000, 500, 500], "size": 12, "chosen": 5, "start": 0.4,
                            "epochs": 60},
    },
    changes={"small": "Not in the paper; 2000 ground sets.", "full": "Not in the paper; 20 000 ground sets."},
    data={
        "small": "scikit-learn wine: 89 rows for training sets, 89 for test sets",
        "full": "scikit-learn wine: 89 rows for training sets, 89 for test sets",
    },
    seeds={"small": 8, "full": 8},
)  # fmt: skip
