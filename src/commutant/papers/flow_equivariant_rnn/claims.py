"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

import math

from ...evidence import Claim
from .experiments import COST, EQUIVARIANCE, FORECAST, VELOCITIES


def _halvings(worse: float, better: float) -> float:
    return math.log2(worse / better)


def _digits(error: float) -> float:
    return -math.log10(max(error, 1e-17))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="flow-equivariance",
        statement="The state of a FERNN with a closed set of velocities moves exactly with its input.",
        source="Section 3",
        reported={},
        experiment=EQUIVARIANCE,
        effect=lambda m: _digits(max(m["fernn"], m["mixing"])),
        effect_label="digits to which the state moves with the input, worst velocity and step",
        unit="digits",
        at_least=12.0,
        basis="identity",
        cases=lambda m: m["cases"],
        controls={
            "a recurrent network of equivariant parts": lambda m: _digits(m["grnn"]),
            "velocities that are not closed (pooled)": lambda m: _digits(m["part"]),
        },
        refutable_at=("small", "full"),
    ),
    Claim(
        name="published-decoder",
        statement="The published FERNN forecaster, whose decoder reads the state without moving it on, is flow "
        "equivariant to six digits.",
        source="Section 4; the released code",
        reported={},
        experiment=EQUIVARIANCE,
        effect=lambda m: _digits(m["lagged"]),
        effect_label="digits to which the forecast moves with the input, worst velocity and frame",
        unit="digits",
        at_least=6.0,
        basis="identity",
        cases=lambda m: m["cases"],
        controls={},
        refutable_at=("small", "full"),
    ),
    Claim(
        name="aligned-decoder",
        statement="A FERNN forecaster whose decoder moves the state on by one step before reading it is exactly flow "
        "equivariant.",
        source="this library; not in the paper",
        reported={},
        experiment=EQUIVARIANCE,
        effect=lambda m: _digits(m["aligned"]),
        effect_label="digits to which the forecast moves with the input, worst velocity and frame",
        unit="digits",
        at_least=12.0,
        basis="identity",
        cases=lambda m: m["cases"],
        controls={"the published decoder": lambda m: _digits(m["lagged"])},
        refutable_at=("small", "full"),
    ),
    Claim(
        name="forecast",
        statement="A FERNN forecasts moving digits with less than half the error of a recurrent network of equivariant "
        "parts (G-RNN) that has as many parameters.",
        source="Table 1 (velocities and V of at most 2: 1.5e-4 against 8.1e-3)",
        reported={"grnn@near": 8.1e-3, "fernn-lagged@near": 1.5e-4},
        labels={
            "grnn@near": "G-RNN, mean squared error on the trained horizon",
            "fernn-lagged@near": "FERNN, mean squared error on the trained horizon",
        },
        experiment=FORECAST,
        effect=lambda m: _halvings(m["grnn@near"], m["fernn-lagged@near"]),
        effect_label="halvings of the squared error from G-RNN to FERNN, trained horizon",
        unit="halvings",
        at_least=1.0,
        reported_effect=math.log2(8.1e-3 / 1.5e-4),
        controls={"G-RNN with four times the parameters": lambda m: _halvings(m["grnn@near"], m["grnn-wide@near"])},
    ),
    Claim(
        name="length",
        statement="A FERNN with the published decoder forecasts moving digits better than a recurrent network of "
        "equivariant parts (G-RNN) on frames beyond twice the trained horizon.",
        source="Figure 4 (stable to 70 frames after training on 20)",
        reported={},
        experiment=FORECAST,
        effect=lambda m: _halvings(m["grnn@far"], m["fernn-lagged@far"]),
        effect_label="halvings of the squared error from G-RNN to FERNN, frames beyond twice the trained horizon",
        unit="halvings",
        at_least=0.5,
        controls={},
    ),
    Claim(
        name="length-aligned",
        statement="A FERNN with the aligned decoder forecasts moving digits beyond the trained horizon with less than "
        "a third of the error of one with the published decoder.",
        source="this library; not in the paper",
        reported={},
        experiment=FORECAST,
        effect=lambda m: _halvings(m["fernn-lagged@beyond"], m["fernn@beyond"]),
        effect_label="halvings of the squared error from the published to the aligned decoder, beyond the trained "
        "horizon",
        unit="halvings",
        at_least=math.log2(3),
        controls={
            "the same change of decoder in G-RNN": lambda m: _halvings(m["grnn@beyond"], m["grnn-aligned@beyond"])
        },
    ),
    Claim(
        name="unseen-velocities",
        statement="A FERNN with velocities of at most 2, trained on velocities of at most 1, forecasts faster digits "
        "with less than a quarter of the error of a FERNN with velocities of at most 1.",
        source="Section 4, velocity generalization",
        reported={},
        experiment=VELOCITIES,
        effect=lambda m: _halvings(m["fernn@unseen"], m["fernn-v2@unseen"]),
        effect_label="halvings of the squared error from 9 to 25 velocities in the network, unseen velocities",
        unit="halvings",
        at_least=2.0,
        controls={
            "at velocities that were in training": lambda m: _halvings(m["fernn@seen"], m["fernn-v2@seen"]),
            "9 velocities against none": lambda m: _halvings(m["grnn@unseen"], m["fernn@unseen"]),
        },
    ),
    Claim(
        name="cost",
        statement="A FERNN that moves 25 velocities in one gather is at least 1.1 times as fast as one that loops over "
        "them, as the published code does.",
        source="Figure 11 (the released loop: about 30 times the time without velocities)",
        reported={},
        experiment=COST,
        effect=lambda m: m["loop-v2"] / m["v2"],
        effect_label="time of the loop over velocities over the time of one gather, forward and backward",
        unit="times",
        at_least=1.1,
        controls={},
        refutable_at=("small", "full"),
    ),
)
