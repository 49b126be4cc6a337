"""Investigating Sparsity in Recurrent Neural Networks: its claims."""

from __future__ import annotations

from ..evidence import Claim, Experiment, Measurement, Paper
from ..sequences import GraphRNN, prune_recurrent, to_sparse
from . import _sparsity_figures as draw_figure
from ._sparsity_measures import CELLS, KINDS, measure_pruning, measure_structure

_DATA = "strings of the Reber grammar and near misses of equal length and ending, generated"
_STRINGS = {"small": {"pairs": 1264, "held_out": 126}, "full": {"pairs": 12_500, "held_out": 3_125}}

PRUNING = Experiment(
    name="pruning",
    measure=measure_pruning,
    minutes=12.0,
    settings={
        "small": {**_STRINGS["small"], "width": 50, "epochs": 20},
        "full": {**_STRINGS["full"], "width": 50, "epochs": 50},
    },
    changes={
        "small": "2276 training strings of 13 to 30 letters whose labels no length, ending or pair of letters tells, "
        "read at their true last letter, 20 epochs; the thesis has 18 750 strings, of which the last four letters "
        "alone decide 94 %, read behind the padding, 50 epochs, and retrains for up to ten.",
        "full": "As many strings and epochs as the thesis, of equal length and ending, read at their true last letter.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.pruning,
    figure_caption="Accuracy right after pruning (lines) and after three epochs with the mask fixed (rings), median "
    "over seeds. Dotted: chance.",
)

STRUCTURE = Experiment(
    name="structure",
    measure=measure_structure,
    minutes=4.9,
    settings={
        "small": {**_STRINGS["small"], "graphs": 10, "smallest": 10, "largest": 30, "steps": 120, "cell": "gru"},
        "full": {**_STRINGS["full"], "graphs": 100, "smallest": 10, "largest": 50, "steps": 2200, "cell": "gru"},
    },
    changes={
        "small": "20 graphs a seed with 10 to 30 nodes, gate masks that follow the gates, 120 steps; the thesis has "
        "200 graphs with 10 to 50 nodes, scrambled masks and 15 epochs.",
        "full": "Gate masks that follow the gates; strings of equal length and ending.",
    },
    data={"small": _DATA, "full": _DATA},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.structure,
    figure_caption="Each dot is a network wired by a random graph, over all seeds. The embedding is as wide as the "
    "graph has sources, as in the thesis, so that their number is also the width of the input.",
)


def _worst(m: Measurement, end: str, cells: tuple[str, ...] = CELLS) -> float:
    return min(m[f"{cell}-{which}@{end}"] for cell in cells for which in KINDS)


def _loss(m: Measurement, end: str) -> float:
    return min(m[f"{cell}-{which}@{end}"] - m[f"{cell}@base"] for cell in CELLS for which in KINDS)


PAPER = Paper(
    slug="rnn-sparsity",
    title="Investigating Sparsity in Recurrent Neural Networks",
    authors="Harshil Darji",
    year=2024,
    venue="arXiv",
    link="https://arxiv.org/abs/2407.20601",
    room="sequences",
    idea="Two ways to a sparse recurrent network: prune a trained one by magnitude and retrain it with the mask "
    "fixed, or wire one by a random graph. The thesis finds that most weights can go, that LSTM and GRU recover even "
    "without any hidden-to-hidden weight, and that the accuracy of wired networks goes with properties of the graph.",
    usage="""import torch
from commutant.sequences import prune_recurrent, to_sparse

rnn = prune_recurrent(torch.nn.GRU(64, 256), 0.95)    # masks that survive training
y, h_n = to_sparse(rnn)(torch.randn(50, 8, 64))       # inference on the weights that are left
print(y.shape)""",
    subjects=(GraphRNN, prune_recurrent, to_sparse),
    claims=(
        Claim(
            name="safe-pruning",
            statement="Four tenths of the recurrent weights can go from any cell, input or recurrent, with a loss of "
            "less than one point.",
            source="Section 5.1 (60 to 80 % with little loss)",
            reported={"tanh@base": 0.937, "lstm@base": 1.0, "gru@base": 1.0},
            experiment=PRUNING,
            effect=lambda m: _loss(m, "40"),
            effect_label="accuracy after pruning 40 % minus before, worst cell and kind of weight",
            at_least=-0.01,
            controls={"weights chosen at random": lambda m: _loss(m, "random-40")},
        ),
        Claim(
            name="recovery",
            statement="With 80 % of the recurrent weights gone, three epochs with the mask fixed bring every cell "
            "back to 95 %.",
            source="Section 5.1 (one epoch, up to 90 %)",
            reported={"lstm-both@80+1": 1.0, "gru-both@80+1": 1.0, "tanh-both@80+1": 0.933},
            experiment=PRUNING,
            effect=lambda m: _worst(m, "80+3"),
            effect_label="accuracy after three epochs, worst cell and kind of weight",
            at_least=0.95,
            controls={
                "a fresh network, pruned as much, three epochs": lambda m: max(m[f"{cell}@fresh+3"] for cell in CELLS)
            },
        ),
        Claim(
            name="one-epoch",
            statement="With 90 % gone, a single epoch restores the accuracy of LSTM and GRU to within five points.",
            source="Section 5.1",
            reported={"lstm-both@90+1": 1.0, "gru-both@90+1": 1.0},
            experiment=PRUNING,
            effect=lambda m: min(m[f"{c}-both@90+1"] - m[f"{c}@base"] for c in ("lstm", "gru")),
            effect_label="accuracy after one epoch minus before pruning, the worse of the two",
            at_least=-0.05,
            reported_effect=0.0,
        ),
        Claim(
            name="no-recurrent-weights",
            statement="LSTM and GRU are back well above chance without a single hidden-to-hidden weight; a plain RNN "
            "is not.",
            source="Section 5.1",
            reported={"lstm-h2h@100+1": 0.988, "gru-h2h@100+1": 0.974, "tanh-h2h@100+1": 0.518},
            experiment=PRUNING,
            effect=lambda m: min(m["lstm-h2h@100+3"], m["gru-h2h@100+3"]),
            effect_label="accuracy after three epochs, the worse of the two",
            at_least=0.65,
            reported_effect=0.974,
            controls={
                "tanh": lambda m: m["tanh-h2h@100+3"],
                "ReLU": lambda m: m["relu-h2h@100+3"],
            },
        ),
        Claim(
            name="diagonal-recurrence",
            statement="An LSTM or GRU whose hidden-to-hidden matrices are cut to their diagonals is back at 80 % "
            "after four epochs, and could then train in parallel over time.",
            source="this library; not in the thesis",
            reported={},
            experiment=PRUNING,
            effect=lambda m: min(m["lstm-diagonal@4"], m["gru-diagonal@4"]),
            effect_label="accuracy after four epochs, the worse of the two",
            at_least=0.8,
            controls={"tanh": lambda m: m["tanh-diagonal@4"]},
        ),
        Claim(
            name="graph-size",
            statement="Networks wired by graphs with more source nodes are more accurate.",
            source="Table of correlations, GRU",
            reported={"r-sources": 0.74, "r-nodes": 0.49, "r-closeness_variance": -0.67},
            experiment=STRUCTURE,
            effect=lambda m: m["r-sources"],
            effect_label="correlation of accuracy with the number of source nodes",
            at_least=0.3,
            reported_effect=0.74,
        ),
        Claim(
            name="graph-shape",
            statement="The shape of the graph matters beyond its size: a larger variance of closeness goes with a "
            "lower accuracy among graphs of equal size, sources and family.",
            source="Table of correlations, GRU (-0.67, size not removed)",
            reported={"partial-closeness_variance": -0.15},
            experiment=STRUCTURE,
            effect=lambda m: -m["partial-closeness_variance"],
            effect_label="partial correlation with the variance of closeness, sign turned",
            at_least=0.2,
            reported_effect=0.15,
        ),
    ),
)
