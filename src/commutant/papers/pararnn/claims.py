"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

import math
from functools import partial

from ...evidence import Claim, Measurement, series
from .experiments import AGREEMENT, LANGUAGE, PARITY, SHAKESPEARE, SPEED, TASKS

_ROUNDING = 1e-7  # nothing in single precision is righter than this


def _figure(name: str, m: Measurement) -> float:
    return m[name]


def _digits(m: Measurement, arm: str) -> float:
    """Decimal digits that are right at the worst length."""
    return -math.log10(max(*series(m, arm).values(), _ROUNDING))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="three-iterations",
        statement="With recurrent weights clipped to 0.5, three Newton iterations give the trajectory of a ParaGRU "
        "in single precision, whatever the length.",
        source="Section 4.1, Figure 4",
        reported={},
        experiment=AGREEMENT,
        effect=lambda m: _digits(m, "gru-0.5"),
        effect_label="digits right at the worst length (the error as -log10)",
        at_least=5.0,
        controls={"weights up to 2, where the iteration must not converge": lambda m: _digits(m, "gru-2.0")},
    ),
    Claim(
        name="three-iterations-lstm",
        statement="With recurrent weights clipped to 0.5, three Newton iterations give the trajectory of a ParaLSTM.",
        source="Section 4.1, Figure 4",
        reported={},
        experiment=AGREEMENT,
        effect=lambda m: _digits(m, "lstm-0.5"),
        effect_label="digits right at the worst length (the error as -log10)",
        at_least=4.0,
        controls={"weights up to 2, where the iteration must not converge": lambda m: _digits(m, "lstm-2.0")},
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
        statement="A block with a ParaGRU keeps the fifth token; one whose recurrence is linear in its state does not.",
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
        statement="At equal parameters and steps a language model of ParaGRU blocks is no worse than one of attention.",
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
)
