"""Self-Normalizing Neural Networks: its claims, at each scale, with controls."""

from __future__ import annotations

import math

from ..data import uci_unavailable
from ..evidence import Claim, Experiment, Measurement, Paper
from ..theory import is_self_normalizing, moment_map
from . import _snn_figures as draw_figure
from ._rank_measures import measure_ranks
from ._snn_measures import measure_depths, measure_moments, measure_very_deep

_SMALL = ("digits", "breast-cancer", "waveform", "ringnorm")
_FULL = ("spambase", "statlog-landsat", "statlog-image", "optical", "letter", "magic", "waveform-noise", "semeion")


MOMENTS = Experiment(
    name="moments",
    measure=measure_moments,
    minutes=0.2,
    settings={
        "small": {"width": 512, "depth": 32, "inputs": 1024},
        "full": {"width": 4096, "depth": 128, "inputs": 8192},
    },
    changes={
        "small": "32 layers of 512 units, standard normal inputs, before training.",
        "full": "128 layers of 4096 units, standard normal inputs, before training.",
    },
    data={"small": "normal inputs", "full": "normal inputs"},
    seeds={"small": 5, "full": 3},
    figure=draw_figure.moments,
    figure_caption="Variance of SELU's activations, layer by layer, under the initialisation that the paper asks for "
    "and "
    "under two that users reach for; and how squared gradients grow on their way back.",
)

DEPTHS = Experiment(
    name="depths",
    measure=measure_depths,
    minutes=4.0,
    settings={
        "small": {"tables": list(_SMALL), "depths": [4, 16, 32], "width": 64, "steps": 400, "rates": [0.01, 0.1]},
        "full": {
            "tables": list(_FULL),
            "depths": [2, 4, 8, 16, 32],
            "width": 256,
            "steps": 20_000,
            "rates": [0.01, 0.1, 1.0],
        },
    },
    changes={
        "small": "Four tables in place of 121, width 64, 400 steps, two learning rates.",
        "full": "Eight tables in place of 121, width 256, 20 000 steps, three learning rates.",
    },
    data={
        "small": "scikit-learn digits and breast cancer, 2000 rows each of Breiman's waveform and ringnorm",
        "full": "eight UCI tables",
    },
    seeds={"small": 3, "full": 5},
    figure=draw_figure.depths,
    figure_caption="Test accuracy of plain networks of 64 units, mean over four tables, after 400 steps at the better "
    "of "
    "two learning rates (thin lines are seeds).",
)

VERY_DEEP = Experiment(
    name="very-deep",
    measure=measure_very_deep,
    minutes=3.0,
    settings={
        "small": {"depth": 200, "width": 64, "steps": 200, "rates": [0.001, 0.01, 0.1]},
        "full": {"depth": 1000, "width": 256, "steps": 5000, "rates": [0.0001, 0.001, 0.01, 0.1]},
    },
    changes={
        "small": "200 layers of 64 units on scikit-learn's digits, 200 steps; not in the paper.",
        "full": "1000 layers of 256 units on scikit-learn's digits, 5000 steps; not in the paper.",
    },
    data={"small": "scikit-learn digits", "full": "scikit-learn digits"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.very_deep,
    figure_caption="Test accuracy of plain networks of 200 layers after 200 steps, at the best of three learning "
    "rates. "
    "The skip's weight is the one with which squared gradients grow by e in all.",
)


RANKS = Experiment(
    name="ranks",
    measure=measure_ranks,
    minutes=25.0,
    settings={
        "small": {
            "rows": 2500,
            "depths": [2, 8],
            "width": 128,
            "steps": 200,
            "rates": [0.01, 0.1],
            "adamw_rates": [0.001, 0.01],
            "trees": 100,
        },
        "full": {
            "rows": 200_000,
            "depths": [2, 3, 4, 8, 16, 32],
            "width": 256,
            "steps": 20_000,
            "rates": [0.01, 0.1, 1.0],
            "adamw_rates": [0.0003, 0.001, 0.003],
            "trees": 300,
        },
    },
    changes={
        "small": "117 tables of 121, at most 2500 rows of each, four networks of seven, 200 steps, two depths and two "
        "learning rates in place of 72 settings; layer normalisation under AdamW and gradient boosting are ours.",
        "full": "117 tables of 121, four networks of seven, 20 000 steps, six depths and three learning rates; layer "
        "normalisation under AdamW and gradient boosting are ours.",
    },
    data={"small": "UCI tables of Fernandez-Delgado et al.", "full": "UCI tables of Fernandez-Delgado et al."},
    seeds={"small": 3, "full": 5},
    unavailable=uci_unavailable,
    figure=draw_figure.ranks,
    figure_caption="Mean rank over the tables by test accuracy, 1 is best. Dots are seeds, each with splits of its "
    "own.",
)


def _worst(m: Measurement, name: str) -> float:
    """How far the variance strays from one, in logarithms, and the mean from zero."""
    layers = [key.split("@")[1] for key in m if key.startswith(f"{name}-variance@")]
    return max(max(abs(math.log(m[f"{name}-variance@{i}"])), abs(m[f"{name}-mean@{i}"])) for i in layers)


def _depths(m: Measurement) -> list[str]:
    return sorted({key.split("@")[1] for key in m if key.startswith("mean-selu@")}, key=int)


def _lead(m: Measurement, depth: str) -> float:
    """Accuracy of SELU above the best of the others."""
    return m[f"mean-selu@{depth}"] - max(m[f"mean-{other}@{depth}"] for other in ("relu", "batch", "layer"))


def _fall(m: Measurement, method: str) -> float:
    """Accuracy at the deepest above that at 4 layers."""
    return m[f"mean-{method}@{_depths(m)[-1]}"] - m[f"mean-{method}@4"]


def _rank_lead(m: Measurement, among: str, others: tuple[str, ...]) -> float:
    """Ranks by which SELU is ahead of the best of the others."""
    return min(m[f"{among}@{other}"] for other in others) - m[f"{among}@selu"]


PAPER = Paper(
    slug="self-normalizing",
    title="Self-Normalizing Neural Networks",
    authors="Günter Klambauer, Thomas Unterthiner, Andreas Mayr, Sepp Hochreiter",
    year=2017,
    venue="NeurIPS 2017",
    link="https://arxiv.org/abs/1706.02515",
    room="theory",
    idea="An activation whose map of mean and variance contracts to (0, 1) keeps the signals of plain deep networks "
    "at their size without normalisation layers: SELU, with weights of variance 1 / fan-in and a dropout to match.",
    usage="""import torch
from commutant.theory import SNN, moment_report

net = SNN(64, 10, hidden=256, depth=16)
print(moment_report(net, torch.randn(512, 64)))
""",
    subjects=(moment_map, is_self_normalizing),
    claims=(
        Claim(
            name="moments",
            statement="Through 32 layers of 512 units mean and variance of SELU's activations stay within 0.1 of 0 "
            "and 1.",
            source="section 2 and theorem 1",
            reported={},
            experiment=MOMENTS,
            effect=lambda m: -_worst(m, "lecun"),
            effect_label="minus the worst of |mean| and |log variance|",
            at_least=-0.1,
            controls={
                "He's initialisation": lambda m: -_worst(m, "he"),
                "gain 3/4": lambda m: -_worst(m, "gain 3/4"),
            },
        ),
        Claim(
            name="contraction",
            statement="In the domain of theorem 1 the map of mean and variance contracts, and maps the domain into "
            "itself.",
            source="theorem 1; the largest singular value at the fixed point is 0.7877",
            reported={},
            experiment=MOMENTS,
            effect=lambda m: 1 - m["contraction"],
            effect_label="one minus the largest singular value on a grid of the domain",
            at_least=0.0,
            basis="identity",
            cases=lambda m: m["grid"],
        ),
        Claim(
            name="gradients",
            statement="Gradients neither explode nor vanish: their mean square changes by less than a factor of two "
            "through 32 layers.",
            source="abstract: vanishing and exploding gradients are impossible",
            reported={},
            experiment=MOMENTS,
            effect=lambda m: -abs(math.log2(m["lecun-gradient@1"])),
            effect_label="minus the octaves by which squared gradients change",
            at_least=-1.0,
        ),
        Claim(
            name="deep",
            statement="With 32 hidden layers plain SELU networks are better than ReLU networks without, with batch "
            "and with layer normalisation: three points on the mean over four tables.",
            source="Tables 1 and 2: the lead grows with depth",
            reported={},
            experiment=DEPTHS,
            effect=lambda m: _lead(m, _depths(m)[-1]),
            effect_label="accuracy above the best of the others, deepest",
            at_least=0.03,
            controls={"with 4 layers": lambda m: _lead(m, "4")},
        ),
        Claim(
            name="no-fall",
            statement="They lose less than five points from 4 layers to 32.",
            source="Table 2: 83.7 at 2 layers, 82.5 at 32",
            reported={},
            experiment=DEPTHS,
            effect=lambda m: _fall(m, "selu"),
            effect_label="accuracy at the deepest minus accuracy at 4 layers",
            at_least=-0.05,
            controls={
                "ReLU": lambda m: _fall(m, "relu"),
                "batch norm": lambda m: _fall(m, "batch"),
                "layer norm": lambda m: _fall(m, "layer"),
            },
        ),
        Claim(
            name="two-hundred",
            statement="Through 200 layers SELU as published does not train; a skip of the weight that keeps gradients "
            "in bounds gains 30 points.",
            source="not in the paper: what its growing gradients ask for",
            reported={},
            experiment=VERY_DEEP,
            effect=lambda m: m["skip@accuracy"] - m["plain@accuracy"],
            effect_label="accuracy with the skip above that without",
            at_least=0.3,
        ),
        Claim(
            name="ranks",
            statement="Over all tables at hand SELU networks have the best mean rank of plain networks, a fifth of a "
            "rank ahead of ReLU without, with batch and with layer normalisation.",
            source="Table 1: 0.516 ranks ahead of the next among seven",
            reported={
                "difference@selu": -0.756,
                "difference@relu": -0.240,
                "difference@layer": -0.198,
                "difference@batch": 0.504,
            },
            experiment=RANKS,
            effect=lambda m: _rank_lead(m, "difference", ("relu", "batch", "layer")),
            effect_label="ranks ahead of the next",
            at_least=0.2,
            reported_effect=0.516,
        ),
        Claim(
            name="modern",
            statement="SELU networks are ahead, too, of a network with layer normalisation under AdamW and of gradient "
            "boosting as scikit-learn has it.",
            source="not in the paper; what one would use today",
            reported={},
            experiment=RANKS,
            effect=lambda m: _rank_lead(m, "rank", ("adamw", "boosting")),
            effect_label="ranks ahead of the better of the two, among six",
            at_least=0.0,
        ),
    ),
)
