"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...evidence import Experiment
from . import figures
from .measures import (
    measure_cost,
    measure_equivariance,
    measure_forecast,
    measure_velocities,
)

_SMALL = {
    "data": "digits", "size": 14, "given": 5, "ahead": 5, "channels": 16, "decoder_layers": 2, "train_speed": 1,
    "batch": 8, "learning_rate": 3e-3, "test": 192,
}  # fmt: skip


_FULL = {
    "data": "mnist", "size": 28, "given": 10, "ahead": 10, "channels": 128, "decoder_layers": 4, "batch": 128,
    "learning_rate": 1e-3, "test": 10_000, "steps": 21_000,
}  # fmt: skip


_CHANGES = (
    "Moves 8 x 8 digits on a torus of 14 x 14 with integer velocities of at most 1, gives 5 frames and forecasts 5, "
    "with 16 channels and two hidden layers in the decoder, for {steps} steps of batch 8. The paper moves MNIST digits "
    "on 28 x 28 with velocities of at most 2, gives 10 frames and forecasts 10, with 128 channels and four layers, for "
    "50 epochs of 54 000 sequences."
)


FORECAST = Experiment(
    name="forecast",
    measure=measure_forecast,
    minutes=12.0,
    settings={"small": {**_SMALL, "steps": 600}, "full": {**_FULL, "train_speed": 1}},
    changes={
        "small": _CHANGES.format(steps=600),
        "full": "Trains on velocities of at most 1 with 9 velocities in the network (the paper's second setting), on "
        "fresh sequences in every step.",
    },
    data={"small": "scikit-learn digits, 1797 images, moving on a torus", "full": "MNIST, moving on a torus"},
    seeds={"small": 3, "full": 3},
    figure=figures.forecast,
    figure_caption="Mean squared error of each forecast frame on test digits (median over seeds). The networks were "
    "trained on the frames to the left of the dotted line.",
)


VELOCITIES = Experiment(
    name="velocities",
    measure=measure_velocities,
    minutes=2.0,
    settings={"small": {**_SMALL, "steps": 400}, "full": {**_FULL, "train_speed": 1}},
    changes={
        "small": _CHANGES.format(steps=400) + " Tests eight velocities.",
        "full": "Tests eight velocities instead of all 25.",
    },
    data={"small": "scikit-learn digits, 1797 images, moving on a torus", "full": "MNIST, moving on a torus"},
    seeds={"small": 3, "full": 3},
    figure=figures.velocities,
    figure_caption="Error at velocities of at most 1, seen in training, and at velocities with a component of 2, not "
    "seen. Each dot is a seed, the bar its mean.",
)


EQUIVARIANCE = Experiment(
    name="equivariance",
    measure=measure_equivariance,
    minutes=0.009,
    settings={"small": {"size": 6, "given": 5}, "full": {"size": 12, "given": 20}},
    changes={
        "small": "Tests random networks with 4 channels on a torus of 6 x 6, in double precision.",
        "full": "Tests random networks with 4 channels on a torus of 12 x 12, in double precision.",
    },
    data={"small": "random frames", "full": "random frames"},
    seeds={"small": 5, "full": 5},
    figure=figures.equivariance,
    figure_caption="Relative error of flow equivariance of random networks, over all velocities of the torus; exact "
    "zeros are drawn at 1e-17. Each dot is a seed, the bar its mean.",
)


COST = Experiment(
    name="cost",
    measure=measure_cost,
    minutes=0.022,
    settings={
        "small": {"size": 14, "given": 5, "channels": 16, "batch": 8, "repeats": 9},
        "full": {"size": 28, "given": 20, "channels": 128, "batch": 32, "repeats": 5},
    },
    changes={
        "small": "Times 16 channels on a torus of 14 x 14 with batch size 8 on this machine; the paper times 128 "
        "channels on 28 x 28 on a GPU.",
        "full": "Times the encoder alone, with batch size 32.",
    },
    data={"small": "random frames", "full": "random frames"},
    seeds={"small": 5, "full": 3},
    figure=figures.cost,
    figure_caption="Time of a forward and backward pass of one layer over the given frames, by the number of "
    "velocities (median over seeds).",
)
