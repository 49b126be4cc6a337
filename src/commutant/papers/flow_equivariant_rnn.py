"""Flow Equivariant Recurrent Neural Networks: its claims."""

from __future__ import annotations

import math

from ..evidence import Claim, Experiment, Paper
from ..sequences import FERNN, FERNNSeq2Seq, LiftToFlow, ParaFERNN
from . import _fernn_figures as draw_figure
from ._fernn_measures import (
    measure_cost,
    measure_equivariance,
    measure_forecast,
    measure_velocities,
)


def _halvings(worse: float, better: float) -> float:
    return math.log2(worse / better)


def _digits(error: float) -> float:
    return -math.log10(max(error, 1e-17))


_SMALL = {
    "data": "digits", "size": 14, "given": 5, "ahead": 5, "channels": 16, "decoder_layers": 2, "train_speed": 1,
    "batch": 8, "learning_rate": 3e-3, "test": 192,
}  # fmt: skip
_FULL = {
    "data": "mnist", "size": 28, "given": 10, "ahead": 10, "channels": 128, "decoder_layers": 4, "batch": 128,
    "learning_rate": 1e-3, "test": 10_000, "steps": 21_000,
}  # fmt: skip
_CHANGES = (
    "Digits of 8 x 8 on a torus of 14 x 14, whole velocities of at most 1, 5 frames given and 5 forecast, 16 channels, "
    "two hidden layers in the decoder and {steps} steps of batch 8; the paper has MNIST on 28 x 28, velocities of at "
    "most 2, 10 and 10 frames, 128 channels, four layers and 50 epochs of 54 000 sequences."
)

FORECAST = Experiment(
    name="forecast",
    measure=measure_forecast,
    minutes=12.0,
    settings={"small": {**_SMALL, "steps": 600}, "full": {**_FULL, "train_speed": 1}},
    changes={
        "small": _CHANGES.format(steps=600),
        "full": "Velocities of at most 1 for V of 9 (the paper's second setting); fresh sequences in every step.",
    },
    data={"small": "scikit-learn digits, 1797 images, moving on a torus", "full": "MNIST, moving on a torus"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.forecast,
    figure_caption="Mean squared error of each forecast frame on test digits (median over seeds). The networks were "
    "trained on the frames left of the dotted line.",
)

VELOCITIES = Experiment(
    name="velocities",
    measure=measure_velocities,
    minutes=2.0,
    settings={"small": {**_SMALL, "steps": 400}, "full": {**_FULL, "train_speed": 1}},
    changes={
        "small": _CHANGES.format(steps=400) + " Eight velocities are tested.",
        "full": "Eight velocities are tested, in place of all 25.",
    },
    data={"small": "scikit-learn digits, 1797 images, moving on a torus", "full": "MNIST, moving on a torus"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.velocities,
    figure_caption="Error at velocities of at most 1, which were in training, and at velocities with a 2 in them, "
    "which were not. Each dot is a seed, the bar its mean.",
)

EQUIVARIANCE = Experiment(
    name="equivariance",
    measure=measure_equivariance,
    minutes=0.009,
    settings={"small": {"size": 6, "given": 5}, "full": {"size": 12, "given": 20}},
    changes={
        "small": "Random networks with 4 channels on a torus of 6 x 6, in double precision.",
        "full": "Random networks with 4 channels on a torus of 12 x 12, in double precision.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 5},
    figure=draw_figure.equivariance,
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
        "small": "16 channels on a torus of 14 x 14, batch 8, on this machine; the paper has 128 channels on 28 x 28 "
        "and a GPU.",
        "full": "Batch 32; the encoder alone.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 3},
    figure=draw_figure.cost,
    figure_caption="Forward and backward of one layer over the given frames, by the number of velocities (median over "
    "seeds).",
)

PAPER = Paper(
    slug="flow-equivariant-rnn",
    title="Flow Equivariant Recurrent Neural Networks",
    authors="T. Anderson Keller",
    year=2025,
    venue="Advances in Neural Information Processing Systems",
    link="https://arxiv.org/abs/2507.14793",
    room="sequences",
    idea="Things that move at constant velocity act on a sequence by a flow, and a recurrent network made of "
    "equivariant parts does not respect it: its state stands still while the input moves on. A FERNN keeps a slice of "
    "its state for each velocity and moves each slice along at every step, with the same parameters.",
    usage="""import torch
from commutant.sequences import FERNNSeq2Seq, Translation

net = FERNNSeq2Seq(1, 16, Translation.grid(1))    # 9 velocities, aligned decoder
frames = net(torch.rand(2, 5, 1, 14, 14), n_future=10)
print(frames.shape)""",
    subjects=(FERNN, FERNNSeq2Seq, ParaFERNN, LiftToFlow),
    claims=(
        Claim(
            name="flow-equivariance",
            statement="With a closed set of velocities the state of a FERNN moves with its input, exactly.",
            source="Section 3",
            reported={},
            experiment=EQUIVARIANCE,
            effect=lambda m: _digits(max(m["fernn"], m["mixing"])),
            effect_label="digits of flow equivariance, worst velocity and step",
            at_least=12.0,
            basis="identity",
            cases=lambda m: m["cases"],
            controls={
                "a recurrent network of equivariant parts": lambda m: _digits(m["grnn"]),
                "velocities that are not closed (pooled)": lambda m: _digits(m["part"]),
            },
        ),
        Claim(
            name="published-decoder",
            statement="The published sequence-to-sequence network, whose decoder reads the state where it stands, is "
            "flow equivariant too.",
            source="Section 4; the released code",
            reported={},
            experiment=EQUIVARIANCE,
            effect=lambda m: _digits(m["lagged"]),
            effect_label="digits of flow equivariance of five forecast frames",
            at_least=6.0,
            controls={},
        ),
        Claim(
            name="aligned-decoder",
            statement="A decoder that moves the state on by one step before it reads it is flow equivariant, exactly.",
            source="this library; not in the paper",
            reported={},
            experiment=EQUIVARIANCE,
            effect=lambda m: _digits(m["aligned"]),
            effect_label="digits of flow equivariance of five forecast frames",
            at_least=12.0,
            basis="identity",
            cases=lambda m: m["cases"],
            controls={"the published decoder": lambda m: _digits(m["lagged"])},
        ),
        Claim(
            name="forecast",
            statement="At equal parameters a FERNN forecasts moving digits with less than half the error of a network "
            "of equivariant parts.",
            source="Table 1 (velocities and V of at most 2: 1.5e-4 against 8.1e-3)",
            reported={},
            experiment=FORECAST,
            effect=lambda m: _halvings(m["grnn@near"], m["fernn-lagged@near"]),
            effect_label="halvings of the error on the trained horizon",
            at_least=1.0,
            reported_effect=math.log2(8.1e-3 / 1.5e-4),
            controls={
                "the same without velocities, four times the parameters": lambda m: _halvings(
                    m["grnn@near"], m["grnn-wide@near"]
                )
            },
        ),
        Claim(
            name="length",
            statement="With its published decoder a FERNN stays ahead of a network of equivariant parts on frames far "
            "beyond its training (three to four times the horizon).",
            source="Figure 4 (stable to 70 frames after training on 20)",
            reported={},
            experiment=FORECAST,
            effect=lambda m: _halvings(m["grnn@far"], m["fernn-lagged@far"]),
            effect_label="halvings of the error on frames beyond twice the trained horizon",
            at_least=0.5,
            controls={},
        ),
        Claim(
            name="length-aligned",
            statement="The aligned decoder has less than a third of the published decoder's error beyond the trained "
            "horizon.",
            source="this library; not in the paper",
            reported={},
            experiment=FORECAST,
            effect=lambda m: _halvings(m["fernn-lagged@beyond"], m["fernn@beyond"]),
            effect_label="halvings of the error on frames beyond the trained horizon",
            at_least=math.log2(3),
            controls={
                "the same change of decoder without velocities": lambda m: _halvings(
                    m["grnn@beyond"], m["grnn-aligned@beyond"]
                )
            },
        ),
        Claim(
            name="unseen-velocities",
            statement="Trained at velocities of at most 1, a network that knows velocities of at most 2 forecasts the "
            "faster ones with less than a quarter of the error of one that does not.",
            source="Section 4, velocity generalisation",
            reported={},
            experiment=VELOCITIES,
            effect=lambda m: _halvings(m["fernn@unseen"], m["fernn-v2@unseen"]),
            effect_label="halvings of the error at unseen velocities, V of 25 against V of 9",
            at_least=2.0,
            controls={
                "at velocities that were in training": lambda m: _halvings(m["fernn@seen"], m["fernn-v2@seen"]),
                "V of 9 against none": lambda m: _halvings(m["grnn@unseen"], m["fernn@unseen"]),
            },
        ),
        Claim(
            name="cost",
            statement="Moving all velocities in one gather is faster than the published loop over 25 velocities.",
            source="Figure 11 (the released loop: about 30 times the time without velocities)",
            reported={},
            experiment=COST,
            effect=lambda m: m["loop-v2"] / m["v2"],
            effect_label="time of the loop over velocities over time of one gather, forward and backward",
            at_least=1.1,
            controls={},
        ),
    ),
)
