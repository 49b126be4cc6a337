"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from ...data import images_unavailable, text_unavailable
from ...evidence import Experiment
from .._shared.classifiers import IMAGES
from . import figures
from .measures import measure_batch_norm, measure_digits, measure_language, measure_residual

_BOTH = ("small", "full")
_WIDTHS = [4, 8, 16, 32, 64, 128, 192, 256]
_DIGITS = {
    "data": "digits", "blocks": 4, "widths": _WIDTHS, "steps": 600, "rivals": True,
    "alone": [[1, 4], [1, 64], [1, 256], [2, 16], [2, 128], [4, 4], [4, 64], [4, 256]],
}  # fmt: skip
_LARGE = {"data": "digits", "blocks": 5, "widths": list(range(8, 257, 8)), "steps": 600, "rivals": False, "alone": []}
_RESIDUAL = {"data": "cifar10-6k", "channels": 16, "depths": [1, 2], "widths": [0.25, 0.5, 0.75, 1.0], "steps": 600}
_LANGUAGE = {"text": "python", "width": 96, "depths": [2, 4, 6], "context": 96, "batch": 16, "held": 64, "steps": 600,
             "prompts": 6, "tokens": 60}  # fmt: skip


def _no_transformers(data: str, folder: str | None) -> str | None:
    if find_spec("transformers") is None:
        return "transformers is not installed: pip install 'commutant[hf]'"
    return text_unavailable(data, folder)


DIGITS = Experiment(
    name="digits",
    measure=measure_digits,
    minutes=0.5,
    settings={"small": _DIGITS, "full": {**_DIGITS, "data": "mnist", "steps": 3000}},
    changes={
        "small": "A residual MLP with 32 sub-networks on 8 x 8 digits, 600 passes; the paper has ResNets and "
        "MobileNets on CIFAR-10.",
        "full": "A residual MLP with 32 sub-networks on MNIST, 3000 passes; the paper has ResNets and MobileNets on "
        "CIFAR-10.",
    },
    data={"small": IMAGES["digits"], "full": IMAGES["mnist"]},
    seeds={"small": 10, "full": 10},
    figure=figures.digits,
    figure_caption="Test accuracy against the width, with all four blocks. Lines are means over seeds.",
)
LARGE = Experiment(
    name="large-menu",
    measure=measure_digits,
    minutes=0.3,
    settings={"small": _LARGE, "full": {**_LARGE, "data": "mnist", "steps": 3000}},
    changes={
        "small": "A residual MLP with 5 depths and 32 widths on 8 x 8 digits, 600 passes.",
        "full": "A residual MLP with 5 depths and 32 widths on MNIST, 3000 passes.",
    },
    data={"small": IMAGES["digits"], "full": IMAGES["mnist"]},
    seeds={"small": 10, "full": 10},
)
NORMS = Experiment(
    name="batch-norm",
    measure=measure_batch_norm,
    minutes=0.2,
    settings={
        "small": {"data": "digits", "widths": [4, 8, 16, 32, 48, 64, 96, 128], "steps": 600},
        "full": {"data": "mnist", "widths": [4, 8, 16, 32, 48, 64, 96, 128], "steps": 3000},
    },
    changes=dict.fromkeys(_BOTH, "An MLP with batch norms; the handling in the paper's tables is not known to us."),
    data={"small": IMAGES["digits"], "full": IMAGES["mnist"]},
    seeds={"small": 10, "full": 10},
)
RESIDUAL = Experiment(
    name="residual",
    measure=measure_residual,
    minutes=9.0,
    settings={"small": _RESIDUAL, "full": {**_RESIDUAL, "steps": 6000}},
    changes={
        "small": "A residual network of 16 to 64 channels with 8 sub-networks, 600 steps on a tenth of CIFAR-10, no "
        "augmentation.",
        "full": "A residual network of 16 to 64 channels with 8 sub-networks, 6000 steps on a tenth of CIFAR-10, no "
        "augmentation.",
    },
    data=dict.fromkeys(_BOTH, IMAGES["cifar10-6k"]),
    seeds={"small": 4, "full": 5},
    unavailable=partial(images_unavailable, "cifar10-6k"),
)
LANGUAGE = Experiment(
    name="language",
    measure=measure_language,
    minutes=2.9,
    settings={
        "small": _LANGUAGE,
        "full": {**_LANGUAGE, "width": 384, "depths": [4, 8, 12], "context": 256, "steps": 5000},
    },
    changes={
        "small": "A character model of 6 layers trained from scratch on source code; the follow-up paper fine-tunes "
        "LLaMA-2-13B.",
        "full": "A character model of 12 layers trained from scratch on source code; the follow-up paper fine-tunes "
        "LLaMA-2-13B.",
    },
    data=dict.fromkeys(_BOTH, "source code of Python's standard library, 2 million characters"),
    seeds={"small": 4, "full": 5},
    unavailable=partial(_no_transformers, "python"),
)
