"""Iterative feature merging: its claims."""

from __future__ import annotations

from functools import partial

from ..data import images_unavailable
from ..evidence import Claim, Experiment, Measurement, Paper
from ..weights import FeatureMerger, feature_complexity, functionally_equivalent
from . import _merging_figures as draw_figure
from ._merging_measures import measure_merging

_DATA = "scikit-learn digits, 1297 images to train on and 500 to test on"

MERGING = Experiment(
    name="merging",
    measure=measure_merging,
    minutes=0.21,
    settings={
        "small": {"data": "digits", "network": "mlp", "widths": [32, 64, 128, 256], "steps": 880},
        "full": {"data": "digits", "network": "mlp", "widths": [32, 64, 128, 256, 512, 1024], "steps": 3000},
    },
    changes={
        "small": "MLPs with two hidden layers of 32 to 256 units on 8 x 8 digits, Adam at 0.001, 880 steps; the paper "
        "trains VGG and ResNet on CIFAR-10 and takes those of ImageNet.",
        "full": "The same up to 1024 units a layer, 3000 steps.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 5, "full": 10},
    figure=draw_figure.merging,
    figure_caption="Left: test accuracy against the share of the parameters that is left (256 units a layer, medians "
    "over seeds); pruning goes to the widths that the paper's rule chose. Middle: the share that is left when the "
    "accuracy has fallen by one point, against the width. Right: the merges of the first layer of 32 units, first "
    "seed; the height is the squared distance as a share of the largest.",
)


def _elsewhere(name: str, data: str, network: str, width: int, steps: int, minutes: float, what: str) -> Experiment:
    """The same measurement on data that has to be there."""
    settings = {"data": data, "network": network, "widths": [width], "steps": steps}
    return Experiment(
        name=name,
        measure=measure_merging,
        minutes=minutes,
        settings={"small": settings, "full": {**settings, "steps": 5 * steps}},
        changes=dict.fromkeys(("small", "full"), f"{what}, Adam at 0.001."),
        data=dict.fromkeys(("small", "full"), data),
        seeds={"small": 3, "full": 5},
        unavailable=partial(images_unavailable, data),
    )


FASHION = _elsewhere("fashion-mnist", "fashion-mnist", "mlp", 512, 2400, 5.8, "An MLP of 2 x 512 units")
CIFAR = _elsewhere(
    "cifar", "cifar10-6k", "vgg", 32, 800, 32.0, "Four convolutions with batch norm on a tenth of CIFAR-10"
)


def _beats(m: Measurement, arm: str = "ifm", width: int = 256, share: float = 0.1) -> float:
    """Accuracy above the better of two ways to prune to the same widths."""
    others = [m[f"w{width}-{other}@at-{share:g}"] for other in ("random", "magnitude")]
    return m[f"w{width}-{arm}@at-{share:g}"] - max(others)


def _recovered(m: Measurement, width: int) -> float:
    return m[f"w{width}-saliency@planted"] - 1e3 * m[f"w{width}-saliency@planted-gap"]


PAPER = Paper(
    slug="iterative-feature-merging",
    title="Going Beyond Neural Network Feature Similarity: The Network Feature Complexity and Its Interpretation Using "
    "Category Theory",
    authors="Yiting Chen, Zhanpeng Zhou, Junchi Yan",
    year=2024,
    venue="International Conference on Learning Representations",
    link="https://arxiv.org/abs/2310.06756",
    room="weights",
    idea="Features of two networks are the same when an invertible change of coordinates turns one network's "
    "computation, layer by layer, into the other's. Within a network, channels that could be exchanged are redundant; "
    "merging the two that are most alike, again and again, counts those that are not, and shrinks a network without "
    "data.",
    usage="""import torch
from torch import nn
from commutant.weights import FeatureMerger

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
merger = FeatureMerger(model, torch.randn(4, 64))  # any module; groups that can't be merged are named
small = merger.shrink(parameters=0.5)              # every cut of the same path of merges
print(small.module, small.summary())""",
    subjects=(FeatureMerger, feature_complexity, functionally_equivalent),
    claims=(
        Claim(
            name="pruning",
            statement="Without data or retraining, a network merged to a tenth of its parameters is more than ten "
            "points more accurate than one pruned to the same widths at random or by magnitude.",
            source="Section 5.2, Figure 4",
            reported={},
            experiment=MERGING,
            effect=_beats,
            effect_label="accuracy above the better of two ways to prune to the same widths",
            at_least=0.1,
            controls={
                "the same rule on clusters filled at random": partial(_beats, arm="pairs"),
            },
        ),
        Claim(
            name="redundancy",
            statement="Wider networks are more redundant: at one point of accuracy the share of the parameters that "
            "must be kept halves, at least, from 32 to 256 units a layer.",
            source="Section 5.1 (larger networks are more redundant)",
            reported={},
            experiment=MERGING,
            effect=lambda m: m["w32-ifm@kept"] / m["w256-ifm@kept"],
            effect_label="share kept at 32 units over that at 256",
            at_least=2.0,
            controls={"random pruning": lambda m: m["w32-random@kept"] / m["w256-random@kept"]},
        ),
        Claim(
            name="planted",
            statement="Copies of channels, read with other weights than their originals, are found exactly by the "
            "bound on what a merge changes: the widths before copying come back (a check of this implementation).",
            source="Theorem 3 (comparable features are equal functions)",
            reported={},
            experiment=MERGING,
            effect=lambda m: min(_recovered(m, 32), _recovered(m, 256)),
            effect_label="share of layers brought back to their width, less a thousand times the change of the outputs",
            at_least=0.99,
            basis="identity",
            cases=lambda m: m["w32@layers"] + m["w256@layers"],
            controls={"the paper's distance, which counts what reads the channels": lambda m: m["w256-ifm@planted"]},
        ),
        Claim(
            name="folding",
            statement="Averaging what makes the channels and adding what reads them, by the bound, keeps two points "
            "more than the paper's rule at a twentieth of the parameters.",
            source="this library; not in the paper",
            reported={},
            experiment=MERGING,
            effect=lambda m: m["w256-saliency@at-0.05"] - m["w256-ifm@at-0.05"],
            effect_label="accuracy above that of the paper's rule",
            at_least=0.02,
            controls={"folding by the paper's distance": lambda m: m["w256-fold@at-0.05"] - m["w256-ifm@at-0.05"]},
        ),
        Claim(
            name="activations",
            statement="With a thousand unlabelled inputs to measure the difference of channels on, two more points.",
            source="this library; not in the paper",
            reported={},
            experiment=MERGING,
            effect=lambda m: m["w256-activations@at-0.05"] - m["w256-saliency@at-0.05"],
            effect_label="accuracy above that without data",
            at_least=0.02,
        ),
        *(
            Claim(
                name=f"pruning-{name}",
                statement=f"Ten points above pruning to the same widths, {share:.0%} of the parameters left, {where}.",
                source="Section 5.2, Figure 4",
                reported={},
                experiment=experiment,
                effect=partial(_beats, width=width, share=share),
                effect_label="accuracy above the better of two ways to prune to the same widths",
                at_least=0.1,
                controls={
                    "the same rule on clusters filled at random": partial(_beats, arm="pairs", width=width, share=share)
                },
            )
            for name, experiment, width, share, where in (
                ("fashion-mnist", FASHION, 512, 0.1, "for an MLP on Fashion-MNIST"),
                ("cifar", CIFAR, 32, 0.25, "for a convolutional network with batch norm on CIFAR-10 images"),
            )
        ),
    ),
)
