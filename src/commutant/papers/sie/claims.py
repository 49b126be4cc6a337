"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

import math

from ...evidence import Claim
from .experiments import FLOOR, VIEWS
from .measures import FLOORS

_EITHER = ("small", "full")
_MEMORY = "the paper's figures from memory, not confirmed"
_POSE = "R² of the rotation by the published formula"


def _over_the_floor(kind: str):  # type: ignore[no-untyped-def]
    return lambda m: [math.log(m[f"{name}@{kind}"] / m[f"{name}@floor"]) for name in FLOORS]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="pose",
        statement="The equivariant half of an SIE representation explains at least 0.08 more of the variance of the "
        "rotation between two views than a whole VICReg representation.",
        source="abstract, Table 1 (rotation prediction)",
        reported={"sie@pose second half, as published": 0.73},
        labels={"sie@pose second half, as published": f"SIE, equivariant half, {_POSE}"},
        experiment=VIEWS,
        effect=lambda m: m["sie@pose second half"] - m["vicreg@pose all"],
        effect_label="R² of the rotation from the equivariant half minus from VICReg",
        unit="R²",
        at_least=0.08,
        controls={
            "a predictor with a bias": lambda m: m["bias@pose second half"] - m["vicreg@pose all"],
            "an MLP as predictor": lambda m: m["mlp@pose second half"] - m["vicreg@pose all"],
        },
    ),
    Claim(
        name="halves",
        statement="The invariant half of an SIE representation explains at least 0.1 less of the variance of the "
        "rotation between two views than the equivariant half.",
        source=f"Table 1 (rotation prediction by part); {_MEMORY}",
        reported={"sie@pose first half, as published": 0.23, "sie@pose second half, as published": 0.73},
        labels={
            "sie@pose first half, as published": f"SIE, invariant half, {_POSE}",
            "sie@pose second half, as published": f"SIE, equivariant half, {_POSE}",
        },
        experiment=VIEWS,
        effect=lambda m: m["sie@pose second half"] - m["sie@pose first half"],
        effect_label="R² of the rotation from the equivariant half minus from the invariant half",
        unit="R²",
        at_least=0.1,
        controls={
            "two halves of VICReg": lambda m: m["vicreg@pose second half"] - m["vicreg@pose first half"],
        },
    ),
    Claim(
        name="classes",
        statement="An SIE representation, which keeps the pose, classifies objects at most 4 points less accurately "
        "than a VICReg representation.",
        source=f"Table 1 (classification); {_MEMORY}",
        reported={"sie@top-1": 0.829, "vicreg@top-1": 0.847},
        labels={"sie@top-1": "SIE, top-1 accuracy", "vicreg@top-1": "VICReg, top-1 accuracy"},
        experiment=VIEWS,
        effect=lambda m: m["sie@top-1"] - m["vicreg@top-1"],
        effect_label="top-1 accuracy of SIE minus VICReg",
        unit="accuracy",
        at_least=-0.04,
        reported_effect=0.829 - 0.847,
        controls={"the pixels themselves": lambda m: m["pixels@top-1"] - m["vicreg@top-1"]},
    ),
    Claim(
        name="retrieval",
        statement="The predictor of SIE finds the rotated view among the views of its object at 1.6 times the mean "
        "reciprocal rank of chance or better.",
        source=f"Table 3 (mean reciprocal rank); {_MEMORY}",
        reported={"sie@mrr": 0.41},
        labels={"sie@mrr": "SIE, mean reciprocal rank"},
        experiment=VIEWS,
        effect=lambda m: m["sie@mrr"] / m["chance@mrr"],
        effect_label="mean reciprocal rank of SIE over that of chance",
        unit="times",
        at_least=1.6,
        controls={
            "a predictor with a bias": lambda m: m["bias@mrr"] / m["chance@mrr"],
            "an MLP as predictor": lambda m: m["mlp@mrr"] / m["chance@mrr"],
        },
    ),
    Claim(
        name="no-collapse",
        statement="Predictors linear in the code of the rotation, trained on constant features, have at least the "
        "error that `collapse_floor` computes from the codes, to 3 % (sampling).",
        source="section 4 (a predictor that cannot collapse to invariance)",
        reported={},
        experiment=FLOOR,
        effect=lambda m: min(_over_the_floor("without")(m)),
        effect_label="logarithm of the trained predictor's error over the floor, smallest of three kinds of rotations",
        unit="log ratio",
        at_least=-0.03,
        basis="identity",
        cases=lambda m: float(len(FLOORS)),
        controls={"predictors with a bias": lambda m: min(_over_the_floor("with")(m))},
        refutable_at=_EITHER,
    ),
    Claim(
        name="floor-reached",
        statement="Predictors linear in the code of the rotation, trained on constant features, come within a third of "
        "the error that `collapse_floor` computes from the codes.",
        source="this library",
        reported={},
        experiment=FLOOR,
        effect=lambda m: -max(_over_the_floor("without")(m)),
        effect_label="minus the logarithm of the trained predictor's error over the floor, largest of three kinds of "
        "rotations",
        unit="log ratio",
        at_least=-0.3,
    ),
    Claim(
        name="quaternions",
        statement="A parameter-free predictor that represents rotations exactly gives an equivariant half whose R² of "
        "the rotation is at most 0.02 below that with the learned predictor of SIE.",
        source="beyond the paper",
        reported={},
        experiment=VIEWS,
        effect=lambda m: m["quaternion@pose second half"] - m["sie@pose second half"],
        effect_label="R² of the rotation from the equivariant half with the quaternion predictor minus with the "
        "learned one",
        unit="R²",
        at_least=-0.02,
        controls={
            "a predictor with a bias": lambda m: m["bias@pose second half"] - m["sie@pose second half"],
            "an MLP as predictor": lambda m: m["mlp@pose second half"] - m["sie@pose second half"],
        },
    ),
)
