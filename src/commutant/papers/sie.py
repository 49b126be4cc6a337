"""Self-supervised learning of split invariant equivariant representations (SIE): its claims, with controls."""

from __future__ import annotations

import math

from ..data import shapes3d
from ..evidence import Claim, Experiment, Paper
from ..geometry import (
    HyperPredictor,
    OrthogonalPredictor,
    QuaternionPredictor,
    SIELoss,
    SplitRepresentation,
    collapse_floor,
    equivariance_report,
    retrieval,
    rotation_r2,
)
from . import _sie_figures as draw_figure
from ._sie_measures import FLOORS, measure_floor, measure_views

VIEWS = Experiment(
    name="views",
    measure=measure_views,
    minutes=30.0,
    settings={
        "small": {
            "train": 800,
            "test": 200,
            "views": 16,
            "points": 4000,
            "size": 32,
            "width": 32,
            "steps": 1500,
            "batch": 128,
            "probe": 600,
        },
        "full": {
            "train": 10_000,
            "test": 2000,
            "views": 50,
            "points": 4000,
            "size": 32,
            "width": 64,
            "steps": 50_000,
            "batch": 1024,
            "probe": 5000,
        },
    },
    changes={
        "small": "Ten classes of objects made of simple bodies, 1000 of them in 16 views of 32 pixels with the latents "
        "of 3DIEBench, a small convolutional network of 128 features for 1500 steps, against 52 472 objects of "
        "ShapeNet in 50 views of 256 pixels and a ResNet-18 for 2000 epochs.",
        "full": "12 000 objects of ten generated classes in 50 views of 32 pixels and a wider network for 50 000 "
        "steps, in place of 3DIEBench and a ResNet-18.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.views,
    figure_caption="Above: four objects, nine views each. Left: share of the variance of the turn between two views "
    "that a probe reads from either half of the features (zero for a constant; of VICReg two arbitrary halves). Right: "
    "how well the right view is found by the prediction, among all of its object. Dots are seeds.",
)

FLOOR = Experiment(
    name="floor",
    measure=measure_floor,
    minutes=4.0,
    settings={"small": {"steps": 5000}, "full": {"steps": 20_000}},
    changes={
        "small": "Beside the paper, which argues in words: 16 dimensions that do not move, 5000 steps.",
        "full": "Beside the paper, which argues in words: 16 dimensions that do not move, 20 000 steps.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.floor,
    figure_caption="The least error of a predictor on features that ignore the turn, by the formula, and what training "
    "reaches with and without a bias.",
)


def _over_the_floor(kind: str):  # type: ignore[no-untyped-def]
    return lambda m: [math.log(m[f"{name}@{kind}"] / m[f"{name}@floor"]) for name in FLOORS]


PAPER = Paper(
    slug="sie",
    title="Self-supervised learning of Split Invariant Equivariant representations",
    authors="Quentin Garrido, Laurent Najman, Yann LeCun",
    year=2023,
    venue="ICML",
    link="https://arxiv.org/abs/2302.10283",
    room="geometry",
    idea="Self-supervision by agreement throws away how an object stands. Half of the features are trained to agree, "
    "the other half to be predictable from the known turn between two views. The predictor's weights are linear in the "
    "code of the turn, so that it cannot ignore it, and the features cannot collapse to invariance.",
    usage="""import torch
from torch import nn
from commutant.data import object_clouds, shapes3d
from commutant.geometry import HyperPredictor, SIELoss, SplitRepresentation, quaternion_code

generator = torch.Generator().manual_seed(0)
views = shapes3d(object_clouds(8, 4000, generator), 4, generator)
net = SplitRepresentation(nn.Sequential(nn.Flatten(), nn.Linear(3072, 64)), 64, projector=(64, 64))
predictor, objective = HyperPredictor(32, 4), SIELoss()

pairs = views.pairs(16, generator)
first, second = net(pairs.first / 255), net(pairs.second / 255)
moved = predictor(first.equivariant, quaternion_code(*pairs.poses))
print(objective(first, second, moved)["total"])
""",
    subjects=(
        SplitRepresentation,
        HyperPredictor,
        QuaternionPredictor,
        OrthogonalPredictor,
        SIELoss,
        collapse_floor,
        rotation_r2,
        retrieval,
        equivariance_report,
        shapes3d,
    ),
    claims=(
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
    ),
)
