"""ParaRNN: Unlocking Parallel Training of Nonlinear RNNs for Large Language Models: its claims so far."""

from __future__ import annotations

import math

from ..evidence import Claim, Experiment, Measurement, Paper
from ..sequences import MinGRU, ParaGRU, ParaLSTM, solve_recurrence
from . import _pararnn_figures as draw_figure
from ._pararnn_measures import measure_agreement, measure_parity, measure_speed

_ROUNDING = 1e-7  # nothing in single precision is righter than this


def _digits(m: Measurement, prefix: str) -> float:
    """Decimal digits that are right at the worst length."""
    return -math.log10(max(max(value for key, value in m.items() if key.startswith(prefix)), _ROUNDING))


AGREEMENT = Experiment(
    name="agreement",
    measure=measure_agreement,
    settings={
        "small": {"lengths": [256, 1024, 4096], "batch": 8, "channels": 64},
        "full": {"lengths": [256, 1024, 4096, 16384, 65536], "batch": 8, "channels": 1024},
    },
    changes={
        "small": "Random float32 cells (normal gates, uniform recurrent weights), in place of cells at initialisation "
        "and of a trained 400M model; lengths to 4096 against 2048.",
        "full": "Random cells in place of a trained 400M model; lengths to 65 536 against 2048.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 5},
    figure=draw_figure.agreement,
    figure_caption="Largest error after three Newton iterations against the length, by the bound of the recurrent "
    "weights (median over seeds); multiple shooting with two sweeps beside it, drawn at 1e-9 where its "
    "error is zero. Dotted: 1e-5.",
)

PARITY = Experiment(
    name="parity",
    measure=measure_parity,
    settings={
        "small": {"channels": 16, "length": 24, "steps": 400, "solve_length": 384},
        "full": {"channels": 64, "length": 100, "steps": 20_000, "solve_length": 1600},
    },
    changes={
        "small": "A target at every step of strings of 24, 400 steps and width 16; the paper has one target at the end "
        "of strings of 100, width 64 and up to 3000 epochs of 10 000 strings. minGRU stands for the linear models.",
        "full": "A target at every step, fresh strings; minGRU stands for Mamba2.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 4, "full": 3},
    figure=draw_figure.parity,
    figure_caption="Each dot is a seed, the bar its mean. Chance is one half.",
)

SPEED = Experiment(
    name="speed",
    measure=measure_speed,
    settings={
        "small": {"lengths": [64, 256, 1024, 4096], "batch": 8, "channels": 64, "repeats": 7},
        "full": {"lengths": [256, 512, 1024, 4096, 16384], "batch": 8, "channels": 1024, "repeats": 10},
    },
    changes={
        "small": "One layer of width 64, batch 8, in PyTorch operators on a CPU; the paper's 665x is a fused CUDA "
        "kernel on an A100 against a loop in Python.",
        "full": "PyTorch operators, no fused kernel.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 3},
    figure=draw_figure.speed,
    figure_caption="Forward and backward of one ParaGRU layer against the length (median over seeds).",
)

PAPER = Paper(
    slug="pararnn",
    title="ParaRNN: Unlocking Parallel Training of Nonlinear RNNs for Large Language Models",
    authors="Federico Danieli, Pau Rodríguez, Miguel Sarabia, Xavier Suau, Luca Zappella",
    year=2026,
    venue="International Conference on Learning Representations",
    link="https://arxiv.org/abs/2510.21450",
    room="sequences",
    idea="A nonlinear recurrence over T steps is one system of T equations. Newton's method turns it into linear "
    "recurrences, which a parallel scan solves in logarithmic depth; with diagonal recurrent weights the Jacobian is "
    "diagonal (GRU) or 2 x 2 blocks (LSTM), and three iterations are said to suffice.",
    usage="""import torch
from commutant.sequences import ParaGRU

layer = ParaGRU(16, 32, batch_first=True)      # where nn.GRU(16, 32, batch_first=True) stood
y, h_n = layer(torch.randn(4, 1000, 16))
print(layer.info[0])                           # how it was solved, and the certificate""",
    subjects=(ParaGRU, ParaLSTM, MinGRU, solve_recurrence),
    claims=(
        Claim(
            name="three-iterations",
            statement="With recurrent weights clipped to 0.5, three Newton iterations give the trajectory of a ParaGRU "
            "in single precision, whatever the length.",
            source="Section 4.1, Figure 4",
            reported={},
            experiment=AGREEMENT,
            effect=lambda m: _digits(m, "gru-0.5@"),
            effect_label="digits right at the worst length (the error as -log10)",
            at_least=5.0,
            controls={"weights up to 2, where the iteration must not converge": lambda m: _digits(m, "gru-2.0@")},
        ),
        Claim(
            name="three-iterations-lstm",
            statement="With recurrent weights clipped to 0.5, three Newton iterations give the trajectory of a "
            "ParaLSTM.",
            source="Section 4.1, Figure 4",
            reported={},
            experiment=AGREEMENT,
            effect=lambda m: _digits(m, "lstm-0.5@"),
            effect_label="digits right at the worst length (the error as -log10)",
            at_least=4.0,
            controls={"weights up to 2, where the iteration must not converge": lambda m: _digits(m, "lstm-2.0@")},
        ),
        Claim(
            name="parity",
            statement="A ParaGRU learns parity and keeps it at four times its training length, which a recurrence that "
            "is linear in its state cannot.",
            source="Table 1",
            reported={"gru@4": 1.0, "linear@4": 0.51},
            experiment=PARITY,
            effect=lambda m: m["gru@4"] - m["linear@4"],
            effect_label="accuracy of ParaGRU minus minGRU at 4 times the training length",
            at_least=0.3,
            reported_effect=0.49,
            controls={"a linear cell four times as wide": lambda m: m["linear-wide@4"] - m["linear@4"]},
        ),
        Claim(
            name="three-iterations-on-parity",
            statement="Three Newton iterations suffice for the cells that learn parity, too.",
            source="Section 4.1 (three iterations in all cases); the paper shows no residual of these cells",
            reported={},
            experiment=PARITY,
            effect=lambda m: -math.log10(max(m["newton-3"], _ROUNDING)),
            effect_label="digits right after three iterations on the trained cell, T = 384",
            at_least=2.0,
            controls={},
        ),
        Claim(
            name="tables-on-parity",
            statement="Tabulated chunk maps solve those same cells, where Newton's method fails after 24 iterations.",
            source="this library; not in the paper",
            reported={},
            experiment=PARITY,
            effect=lambda m: -math.log10(max(m["tabulated"], _ROUNDING)),
            effect_label="digits right on the trained cell, T = 384",
            at_least=5.0,
            controls={"Newton's method, 24 iterations": lambda m: -math.log10(max(m["newton-24"], _ROUNDING))},
        ),
        Claim(
            name="newton-speed",
            statement="Newton's method over the whole trajectory is faster than the loop at length 4096.",
            source="Figure 1 (665 times on an A100, fused, against a loop in Python)",
            reported={},
            experiment=SPEED,
            effect=lambda m: m["sequential@4096"] / m["newton@4096"],
            effect_label="time of the loop over time of Newton's method, forward and backward",
            at_least=1.2,
            controls={"length 64, too short to gain": lambda m: m["sequential@64"] / m["newton@64"]},
        ),
        Claim(
            name="shooting-speed",
            statement="Multiple shooting with its certificate is faster than the loop at length 4096, on a CPU too.",
            source="this library; not in the paper",
            reported={},
            experiment=SPEED,
            effect=lambda m: m["sequential@4096"] / m["auto@4096"],
            effect_label="time of the loop over time of auto, forward and backward",
            at_least=1.2,
            controls={"length 64, where auto is the loop": lambda m: m["sequential@64"] / m["auto@64"]},
        ),
    ),
)
