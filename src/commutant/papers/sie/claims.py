"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

import math

from ...evidence import Claim
from .experiments import FLOOR, VIEWS
from .measures import FLOORS


def _over_the_floor(kind: str):  # type: ignore[no-untyped-def]
    return lambda m: [math.log(m[f"{name}@{kind}"] / m[f"{name}@floor"]) for name in FLOORS]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="pose",
        statement="The equivariant half knows the turn between two views better than all that agreement alone "
        "learns (VICReg), by 0.08 of the variance.",
        source="abstract, Table 1 (rotation prediction)",
        reported={"sie@pose, published formula": 0.73},
        experiment=VIEWS,
        effect=lambda m: m["sie@pose second half"] - m["vicreg@pose all"],
        effect_label="R^2 of the equivariant half above VICReg",
        at_least=0.08,
        controls={
            "a predictor with a bias": lambda m: m["bias@pose second half"] - m["vicreg@pose all"],
            "an MLP as predictor": lambda m: m["mlp@pose second half"] - m["vicreg@pose all"],
        },
    ),
    Claim(
        name="halves",
        statement="The representation is split: the invariant half knows less of the turn, by 0.1 of the variance.",
        source="Table 1 (rotation prediction by part)",
        reported={},
        experiment=VIEWS,
        effect=lambda m: m["sie@pose second half"] - m["sie@pose first half"],
        effect_label="R^2 of the equivariant half above the invariant one",
        at_least=0.1,
        controls={
            "two halves of VICReg": lambda m: m["vicreg@pose second half"] - m["vicreg@pose first half"],
        },
    ),
    Claim(
        name="classes",
        statement="Knowing the pose costs at most four points of accuracy in telling the classes.",
        source="Table 1 (classification)",
        reported={},
        experiment=VIEWS,
        effect=lambda m: m["sie@top-1"] - m["vicreg@top-1"],
        effect_label="accuracy above VICReg",
        at_least=-0.04,
        controls={"the pixels themselves": lambda m: m["pixels@top-1"] - m["vicreg@top-1"]},
    ),
    Claim(
        name="retrieval",
        statement="From one view and a turn, the turned view is found among those of its object, at 1.6 times the "
        "mean reciprocal rank of chance.",
        source="Table 3 (mean reciprocal rank)",
        reported={},
        experiment=VIEWS,
        effect=lambda m: m["sie@mrr"] / m["chance@mrr"],
        effect_label="mean reciprocal rank over that of chance",
        at_least=1.6,
        controls={
            "a predictor with a bias": lambda m: m["bias@mrr"] / m["chance@mrr"],
            "an MLP as predictor": lambda m: m["mlp@mrr"] / m["chance@mrr"],
        },
    ),
    Claim(
        name="no-collapse",
        statement="On features that do not move, the error of a trained predictor that is linear in the code is "
        "not below the floor that `collapse_floor` computes from the codes, to 3 % (sampling).",
        source="section 4 (a predictor that cannot collapse to invariance)",
        reported={},
        experiment=FLOOR,
        effect=lambda m: min(_over_the_floor("without")(m)),
        effect_label="smallest logarithm of error over floor, of three kinds of turns",
        at_least=-0.03,
        controls={"with a bias": lambda m: min(_over_the_floor("with")(m))},
    ),
    Claim(
        name="floor-reached",
        statement="On features that do not move, a trained predictor that is linear in the code comes within a "
        "third of the floor that `collapse_floor` computes from the codes.",
        source="this library",
        reported={},
        experiment=FLOOR,
        effect=lambda m: -max(_over_the_floor("without")(m)),
        effect_label="minus the largest logarithm of error over floor, of three kinds of turns",
        at_least=-0.3,
    ),
    Claim(
        name="quaternions",
        statement="Trained with a predictor that is an exact representation of rotations, without a parameter, the "
        "equivariant half knows the turn as well as with the learned one.",
        source="beside the paper",
        reported={},
        experiment=VIEWS,
        effect=lambda m: m["quaternion@pose second half"] - m["sie@pose second half"],
        effect_label="R^2 of the equivariant half above the learned predictor",
        at_least=-0.02,
        controls={
            "a predictor with a bias": lambda m: m["bias@pose second half"] - m["sie@pose second half"],
            "an MLP as predictor": lambda m: m["mlp@pose second half"] - m["sie@pose second half"],
        },
    ),
)
