"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...data import text_unavailable
from ...evidence import Experiment
from . import figures
from .measures import measure_agreement, measure_parity, measure_speed
from .tasks import measure_language, measure_tasks

AGREEMENT = Experiment(
    name="agreement",
    measure=measure_agreement,
    minutes=0.071,
    settings={
        "small": {"lengths": [256, 1024, 4096], "batch": 8, "channels": 64},
        "full": {"lengths": [256, 1024, 4096, 16384, 65536], "batch": 8, "channels": 1024},
    },
    changes={
        "small": "Solves random float32 cells (normal gates, uniform recurrent weights) of length up to 4096; the "
        "paper solves cells at initialization and of a trained 400M model, of length up to 2048.",
        "full": "Solves random cells of length up to 65 536; the paper solves those of a trained 400M model, up to "
        "2048.",
    },
    data={"small": "random cells and inputs", "full": "random cells and inputs"},
    seeds={"small": 5, "full": 5},
    figure=figures.agreement,
    figure_caption="Largest error after three Newton iterations against the length, by the bound of the recurrent "
    "weights (median over seeds). The error of multiple shooting with two sweeps is drawn at 1e-9 where it "
    "is zero. Dotted: 1e-5.",
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
        "small": "Trains width 16 for 400 steps on strings of 24 with a target at every step; the paper trains width "
        "64 for up to 3000 epochs on 10 000 strings of 100 with one target at the end. minGRU replaces the linear "
        "models.",
        "full": "Trains on fresh strings with a target at every step; minGRU replaces Mamba2.",
    },
    data={"small": "random bit strings", "full": "random bit strings"},
    seeds={"small": 4, "full": 3},
    figure=figures.parity,
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
        "small": "Times one layer of width 64 with batch size 8 on a CPU, in PyTorch operators except for the kernel; "
        "the paper times a fused CUDA kernel on an A100 against a loop in Python.",
        "full": "Times PyTorch operators, except for `auto`.",
    },
    data={"small": "random inputs", "full": "random inputs"},
    seeds={"small": 5, "full": 3},
    figure=figures.speed,
    figure_caption="Time of a forward and backward pass of one ParaGRU layer against the length (median over seeds).",
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
        "small": "Trains for 800 steps on 32 fresh sequences of 24 to 48 tokens, with vocabularies of 4 to 32; the "
        "paper has 100 tokens, vocabularies of 5 to 128 and up to 3000 epochs of 10 000 sequences. Keep-5th has a "
        "target at every step from the fifth on and uses the whole block. minGRU replaces Mamba2.",
        "full": "Trains on fresh sequences. Keep-5th has learned positions and a target at every step from the fifth "
        "on, and uses the whole block. minGRU replaces Mamba2.",
    },
    data={"small": "generated token sequences", "full": "generated token sequences"},
    seeds={"small": 3, "full": 3},
    figure=figures.tasks,
    figure_caption="Accuracy of one block on fresh sequences. Each dot is a seed, the bar its mean.",
)


_LANGUAGE: dict[str, Any] = {
    "settings": {
        "small": {"channels": 64, "length": 256, "batch": 8, "steps": 500, "learning_rate": 4e-3, "mark": 25},
        "full": {"channels": 512, "length": 2048, "batch": 32, "steps": 5000, "learning_rate": 2e-3, "mark": 100},
    },
    "changes": {
        "small": "Trains a character model with two blocks of width 64 (119 000 parameters) for 500 steps of 8 x 256 "
        "characters; the paper has 400 million to 7 billion parameters and 10 to 138 billion tokens of SlimPajama. "
        "A training this short favors recurrences: attention still predicts from neighboring characters alone, at "
        "learning rates from 1e-3 to 8e-3.",
        "full": "Trains a character model with two blocks of width 512; the paper has 400 million parameters and more.",
    },
    "measure": measure_language,
    "minutes": 1.4,
    "seeds": {"small": 3, "full": 3},
    "figure": figures.language,
    "figure_caption": "Training loss on fresh excerpts, in nats per character, against steps and against seconds "
    "(median over seeds), at equal numbers of parameters.",
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
