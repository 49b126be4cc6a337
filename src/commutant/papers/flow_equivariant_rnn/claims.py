"""Claims: statement, effect, bar, controls and the figures of the paper."""

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
)
