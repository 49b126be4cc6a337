"""Revisiting Transformation Invariant Geometric Deep Learning (TinvNN): its claims, at each scale, with controls."""

from __future__ import annotations

from ..evidence import Claim, Experiment, Paper
from ..geometry import (
    MDSCoordinates,
    RoutingCoordinates,
    TransformEquivariant,
    TransformInvariant,
    classical_mds,
    landmark_mds,
)
from . import _tinvnn_figures as draw_figure
from ._tinvnn_measures import measure_routes, measure_shapes

SHAPES = Experiment(
    name="shapes",
    measure=measure_shapes,
    minutes=6.6,
    settings={
        "small": {"train": 1000, "test": 400, "points": 96, "epochs": 25},
        "full": {"train": 40_000, "test": 4000, "points": 1024, "epochs": 100},
    },
    changes={
        "small": "Ten classes of objects made of simple bodies, 1000 clouds of 96 points, a small PointNet for 25 "
        "epochs; the paper's data could not be read.",
        "full": "Ten classes of objects made of simple bodies, 40 000 clouds of 1024 points; the paper's data could "
        "not be read.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.shapes,
    figure_caption="Test accuracy of networks trained on objects turned about z (but for the one turned any way), as "
    "the test objects are moved (thin lines are seeds; dotted is chance).",
)

ROUTES = Experiment(
    name="routes",
    measure=measure_routes,
    minutes=4.6,
    settings={
        "small": {"cities": 10, "tests": 200, "steps": 1000},
        "full": {"cities": 12, "tests": 1000, "steps": 100_000},
    },
    changes={
        "small": "Ten cities, width 64, two layers and 1000 steps; the paper's setting could not be read.",
        "full": "Twelve cities, for which the shortest tours can be computed, and 100 000 steps; the paper's setting "
        "could not be read.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.routes,
    figure_caption="Tours that are city for city the same after the map was moved, and in the legend how long they are "
    "(mean over seeds).",
)

PAPER = Paper(
    slug="tinvnn",
    title="Revisiting Transformation Invariant Geometric Deep Learning: Are Initial Representations All You Need?",
    authors="Ziwei Zhang, Xin Wang, Zeyang Zhang, Peng Cui, Wenwu Zhu",
    year=2021,
    venue="arXiv preprint",
    link="https://arxiv.org/abs/2112.12345",
    room="geometry",
    idea="Layers that are invariant to motions are special and costly. It is enough that the coordinates which a "
    "network reads are invariant and keep all distances: then any network is invariant, and nothing but the pose is "
    "lost. Multidimensional scaling gives such coordinates once its signs are fixed.",
    usage="""import torch
from torch import nn
from commutant.geometry import TransformInvariant

net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 5))
model = TransformInvariant(net)
print(model(torch.randn(8, 100, 3)).shape)
""",
    subjects=(
        MDSCoordinates,
        TransformInvariant,
        TransformEquivariant,
        RoutingCoordinates,
        classical_mds,
        landmark_mds,
    ),
    claims=(
        Claim(
            name="shapes",
            statement="With invariant coordinates, a network that never saw an object turned out of the upright keeps "
            "its accuracy on objects turned any way, scaled and shifted: 50 points above the same network without.",
            source="abstract; no figure of the paper could be read",
            reported={},
            experiment=SHAPES,
            effect=lambda m: m["maxabs@similar"] - m["raw@any"],
            effect_label="accuracy on moved objects, above raw coordinates on turned ones",
            at_least=0.5,
            controls={"turned any way in training": lambda m: m["augmented@any"] - m["raw@any"]},
        ),
        Claim(
            name="strict",
            statement="The invariance is strict: no logit of any object changes by more than a hundredth.",
            source="abstract (strictly invariant)",
            reported={},
            experiment=SHAPES,
            effect=lambda m: 1 - max(m["maxabs@moved"], m["skew@moved"]),
            effect_label="share of objects whose logits stay, the worse of two rules",
            at_least=0.99,
            basis="identity",
            cases=lambda m: m["objects"],
            controls={
                "coordinates without a rule": lambda m: 1 - m["no-rule@moved"],
                "random signs": lambda m: 1 - m["random@moved"],
            },
        ),
        Claim(
            name="nothing-lost",
            statement="On objects turned as in training, invariant coordinates cost at most five points.",
            source="abstract (no information is lost)",
            reported={},
            experiment=SHAPES,
            effect=lambda m: m["maxabs@z"] - m["raw@z"],
            effect_label="accuracy above raw coordinates, both as trained",
            at_least=-0.05,
        ),
        Claim(
            name="routes",
            statement="A solver of the travelling salesman problem that reads invariant coordinates plans the same "
            "tour when the map is turned by any angle, scaled and shifted, where axes and signs are not in doubt.",
            source="abstract (combinatorial optimisation); no figure of the paper could be read",
            reported={},
            experiment=ROUTES,
            effect=lambda m: m["maxabs@same-all"],
            effect_label="share of tours that stay when the map is moved, of maps with clear axes and signs",
            at_least=0.99,
            basis="identity",
            cases=lambda m: m["maps"],
            controls={
                "raw coordinates": lambda m: m["raw@same-all"],
                "coordinates without a rule": lambda m: m["no-rule@same-all"],
            },
        ),
        Claim(
            name="routes-gap",
            statement="Its tours are no longer than those of the solver that reads raw coordinates, to half a point.",
            source="abstract; no figure of the paper could be read",
            reported={},
            experiment=ROUTES,
            effect=lambda m: m["raw@gap-as-is"] - m["maxabs@gap-as-is"],
            effect_label="gap to the shortest tours that it saves",
            at_least=-0.005,
        ),
    ),
)
