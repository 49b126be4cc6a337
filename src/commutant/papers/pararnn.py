"""ParaRNN: Unlocking Parallel Training of Nonlinear RNNs for Large Language Models: its claims."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from ..data import text_unavailable
from ..evidence import Claim, Experiment, Measurement, Paper
from ..sequences import MinGRU, ParaGRU, ParaLSTM, RNNBlock, solve_recurrence
from . import _pararnn_figures as draw_figure
from ._pararnn_measures import measure_agreement, measure_parity, measure_speed
from ._pararnn_tasks import measure_language, measure_tasks

_ROUNDING = 1e-7  # nothing in single precision is righter than this


def _figure(name: str, m: Measurement) -> float:
    return m[name]


def _digits(m: Measurement, prefix: str) -> float:
    """Decimal digits that are right at the worst length."""
    return -math.log10(max(max(value for key, value in m.items() if key.startswith(prefix)), _ROUNDING))


AGREEMENT = Experiment(
    name="agreement",
    measure=measure_agreement,
    minutes=0.071,
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
    minutes=0.045,
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
    minutes=0.14,
    settings={
        "small": {"lengths": [64, 256, 1024, 4096], "batch": 8, "channels": 64, "repeats": 8},
        "full": {"lengths": [256, 512, 1024, 4096, 16384], "batch": 8, "channels": 1024, "repeats": 10},
    },
    changes={
        "small": "One layer of width 64, batch 8, on a CPU, in PyTorch operators but for the kernel; the paper's "
        "665x is a fused CUDA kernel on an A100 against a loop in Python.",
        "full": "PyTorch operators, but for auto.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 3},
    figure=draw_figure.speed,
    figure_caption="Forward and backward of one ParaGRU layer against the length (median over seeds).",
)

TASKS = Experiment(
    name="tasks",
    measure=measure_tasks,
    minutes=4.7,
    settings={
        "small": {
            "channels": 64,
            "steps": 800,
            "batch": 32,
            "tasks": {
                "keep-5th": {"length": 32, "vocabulary": 32},
                "recall": {"pairs": 4, "length": 24, "vocabulary": 24},
                "1-hop": {"length": 48, "vocabulary": 5},
                "2-hop": {"length": 48, "vocabulary": 4},
            },
        },
        "full": {
            "channels": 64,
            "steps": 60_000,
            "batch": 32,
            "tasks": {
                "keep-5th": {"length": 100, "vocabulary": 128},
                "recall": {"pairs": 16, "length": 100, "vocabulary": 128},
                "1-hop": {"length": 100, "vocabulary": 10},
                "2-hop": {"length": 100, "vocabulary": 5},
            },
        },
    },
    changes={
        "small": "Sequences of 24 to 48 tokens from 4 to 32, 800 steps of 32 fresh sequences; the paper has 100 "
        "tokens, vocabularies of 5 to 128 and up to 3000 epochs of 10 000 sequences. Keep-5th has a target at every "
        "step from the fifth on, and the whole block. minGRU stands for Mamba2.",
        "full": "Fresh sequences; Keep-5th has learnt positions, a target at every step from the fifth on, and the "
        "whole block. minGRU stands for Mamba2.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.tasks,
    figure_caption="Accuracy of one block on fresh sequences. Each dot is a seed, the bar its mean.",
)

_LANGUAGE: dict[str, Any] = {
    "settings": {
        "small": {"channels": 64, "length": 256, "batch": 8, "steps": 500, "learning_rate": 4e-3, "mark": 25},
        "full": {"channels": 512, "length": 2048, "batch": 32, "steps": 5000, "learning_rate": 2e-3, "mark": 100},
    },
    "changes": {
        "small": "A character model with two blocks of width 64, 119 000 parameters, 500 steps of 8 x 256 "
        "characters; the paper has 400 million to 7 billion parameters and 10 to 138 billion tokens of SlimPajama. "
        "So short a training favours recurrences: attention has not yet left the statistics of neighbouring "
        "characters, at learning rates from 1e-3 to 8e-3.",
        "full": "A character model with two blocks of width 512; the paper has 400 million parameters and more.",
    },
    "measure": measure_language,
    "minutes": 1.4,
    "seeds": {"small": 3, "full": 3},
    "figure": draw_figure.language,
    "figure_caption": "Training loss on fresh excerpts, in nats a character, against steps and against seconds (median "
    "over seeds), at equal numbers of parameters.",
}


def _language(name: str, text: str, data: str) -> Experiment:
    settings = {scale: {"text": text, **found} for scale, found in _LANGUAGE["settings"].items()}
    return Experiment(
        **{**_LANGUAGE, "settings": settings},
        name=name,
        data={"small": data, "full": data},
        unavailable=partial(text_unavailable, text),
    )


LANGUAGE = _language("language", "python", "source of Python's standard library, 2 million characters")
SHAKESPEARE = _language("shakespeare", "tinyshakespeare", "Tiny Shakespeare, 1.1 million characters")

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
    subjects=(ParaGRU, ParaLSTM, MinGRU, RNNBlock, solve_recurrence),
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
            effect=lambda m: m["sequential@4096"] / m["multishoot@4096"],
            effect_label="time of the loop over time of shooting, forward and backward, in PyTorch operators",
            at_least=1.2,
            controls={"length 64, too short to gain": lambda m: m["sequential@64"] / m["multishoot@64"]},
        ),
        Claim(
            name="kernel-speed",
            statement="On a CPU a sequential kernel with a channel a lane is faster than any parallel solution "
            "in operators.",
            source="this library; not in the paper",
            reported={},
            experiment=SPEED,
            effect=lambda m: min(m["multishoot@4096"], m["newton@4096"], m["sequential@4096"]) / m["auto@4096"],
            effect_label="time of the fastest other method over time of the kernel, forward and backward",
            at_least=1.2,
        ),
        Claim(
            name="keep-5th",
            statement="A block with a ParaGRU keeps the fifth token; one whose recurrence is linear in its state "
            "does not.",
            source="Table 6 (Mamba2: 1 %)",
            reported={"keep-5th-paragru": 1.0, "keep-5th-mingru": 0.01},
            experiment=TASKS,
            effect=lambda m: m["keep-5th-paragru"] - m["keep-5th-mingru"],
            effect_label="accuracy of ParaGRU minus minGRU",
            at_least=0.5,
            reported_effect=0.99,
        ),
        *(
            Claim(
                name=name,
                statement=statement,
                source="Table 6",
                reported={f"{task}-paragru": 1.0, f"{task}-mingru": linear},
                experiment=TASKS,
                effect=partial(_figure, f"{task}-paragru"),
                effect_label="accuracy of the block with a ParaGRU",
                at_least=0.95,
                reported_effect=1.0,
                controls={"no recurrence in the block": partial(_figure, f"{task}-nothing")},
            )
            for name, task, statement, linear in (
                ("recall", "recall", "A block with a ParaGRU recalls the values of keys that it has read.", 1.0),
                ("one-hop", "1-hop", "A block with a ParaGRU does one induction hop at every position.", 1.0),
                ("two-hop", "2-hop", "A block with a ParaGRU does two induction hops at every position.", 0.98),
            )
        ),
        Claim(
            name="language-attention",
            statement="At equal parameters and steps a language model of ParaGRU blocks is no worse than one of "
            "attention.",
            source="Table 2 (7B: perplexity 9.19 against 9.55; at 400M attention is ahead, 17.00 against 18.56)",
            reported={},
            experiment=LANGUAGE,
            effect=lambda m: m["attention@valid"] - m["paragru@valid"],
            effect_label="validation loss of attention minus that of ParaGRU, nats a character",
            at_least=0.0,
            reported_effect=math.log(9.55 / 9.19),
        ),
        Claim(
            name="language-gru",
            statement="At equal parameters and steps it is no worse than a dense GRU (torch.nn.GRU), to 0.05 nats.",
            source="this library; not in the paper",
            reported={},
            experiment=LANGUAGE,
            effect=lambda m: m["gru@valid"] - m["paragru@valid"],
            effect_label="validation loss of nn.GRU minus that of ParaGRU, nats a character",
            at_least=-0.05,
            controls={"minGRU, linear in its state": lambda m: m["gru@valid"] - m["mingru@valid"]},
        ),
        Claim(
            name="shakespeare",
            statement="On Tiny Shakespeare, too, it is no worse than a dense GRU, to 0.05 nats.",
            source="this library; not in the paper",
            reported={},
            experiment=SHAKESPEARE,
            effect=lambda m: m["gru@valid"] - m["paragru@valid"],
            effect_label="validation loss of nn.GRU minus that of ParaGRU, nats a character",
            at_least=-0.05,
            controls={"minGRU, linear in its state": lambda m: m["gru@valid"] - m["mingru@valid"]},
        ),
        Claim(
            name="language-seconds",
            statement="And it takes those steps in less than half of the dense GRU's time.",
            source="this library; not in the paper",
            reported={},
            experiment=LANGUAGE,
            effect=lambda m: m["gru@seconds"] / m["paragru@seconds"],
            effect_label="seconds of training of nn.GRU over those of ParaGRU",
            at_least=2.0,
            controls={"attention": lambda m: m["attention@seconds"] / m["paragru@seconds"]},
        ),
    ),
)
