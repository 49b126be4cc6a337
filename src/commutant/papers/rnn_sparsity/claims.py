"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

from ...evidence import Claim, Measurement
from .experiments import PRUNING, STRUCTURE
from .measures import CELLS, KINDS


def _worst(m: Measurement, end: str, cells: tuple[str, ...] = CELLS) -> float:
    return min(m[f"{cell}-{which}@{end}"] for cell in cells for which in KINDS)


def _loss(m: Measurement, end: str) -> float:
    return min(m[f"{cell}-{which}@{end}"] - m[f"{cell}@base"] for cell in CELLS for which in KINDS)


CLAIMS: tuple[Claim, ...] = (
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
)
