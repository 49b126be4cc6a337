"""Claims: statement, effect, bar and controls. Only the abstract could be read, so no figure of the paper is given."""

from __future__ import annotations

import math

from ...evidence import Claim, Measurement
from .experiments import HEADS, TARGETS

_EITHER = ("small", "full")


def _gain_of_bias(m: Measurement, target: str) -> float:
    """Return the smaller share of the error that the bias removes at 300 and 1000 training sets."""
    return min(1 - m[f"biased-{target}@{n}"] / m[f"attention-{target}@{n}"] for n in (300, 1000))


def _drop(m: Measurement, target: str) -> float:
    """Return the error at 300 training sets over that at 2000."""
    return m[f"attention-{target}@300"] / m[f"attention-{target}@2000"]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="averages",
        statement="Random-feature attention learns an average of quadratic functions of single keys with at most a "
        "tenth of the error of random features of the concatenated tokens, from 1000 sets.",
        source="abstract (sample complexity against random-feature networks)",
        reported={},
        experiment=TARGETS,
        effect=lambda m: m["mlp-average-2@1000"] / m["attention-average-2@1000"],
        effect_label="relative test error of random features of concatenated tokens over that of random-feature "
        "attention",
        unit="times",
        at_least=10.0,
        controls={"a target of pairs of keys": lambda m: m["mlp-pairs@1000"] / m["attention-pairs@1000"]},
    ),
    Claim(
        name="bias",
        statement="Query-key matrices with the identity as their mean lower the error on a target with the cubed inner "
        "product of query and key by at least a tenth, from 300 and from 1000 sets.",
        source="abstract (weights of non-zero mean)",
        reported={},
        experiment=TARGETS,
        effect=lambda m: _gain_of_bias(m, "correlation-3"),
        effect_label="share of the relative test error that the bias removes, the smaller of 300 and 1000 sets",
        unit="of the error",
        at_least=0.1,
        controls={"an average over keys alone": lambda m: _gain_of_bias(m, "average-2")},
    ),
    Claim(
        name="sample-size",
        statement="The error of random-feature attention falls at least 1.5 times as much between 300 and 2000 sets "
        "where the target has the inner product of query and key than where it has its cube.",
        source="abstract (sample size and complexity of the target)",
        reported={},
        experiment=TARGETS,
        effect=lambda m: _drop(m, "correlation-1") / _drop(m, "correlation-3"),
        effect_label="fall of the relative test error for power 1 over the fall for power 3",
        unit="times",
        at_least=1.5,
        controls={"power 2 over power 3": lambda m: _drop(m, "correlation-2") / _drop(m, "correlation-3")},
    ),
    Claim(
        name="trained-deepsets",
        statement="Random-feature attention has at most half of the error of a trained DeepSets network on a target "
        "with the inner product of query and key, from 1000 sets.",
        source="this library; not in the paper",
        reported={},
        experiment=TARGETS,
        effect=lambda m: m["deepsets-correlation-1@1000"] / m["attention-correlation-1@1000"],
        effect_label="relative test error of trained DeepSets over that of random-feature attention",
        unit="times",
        at_least=2.0,
        controls={
            "an average over keys alone": lambda m: m["deepsets-average-2@1000"] / m["attention-average-2@1000"],
        },
    ),
    Claim(
        name="outside",
        statement="Random-feature attention learns nothing of a target of pairs of keys from 2000 sets, with or "
        "without a bias.",
        source="abstract (class of targets); the statement is this library's",
        reported={},
        experiment=TARGETS,
        effect=lambda m: min(m["attention-pairs@2000"], m["biased-pairs@2000"]),
        effect_label="relative test error on the squared norm of the mean key, the smaller with and without a bias",
        unit="of the mean square",
        at_least=0.95,
        controls={"an average over keys alone": lambda m: m["attention-average-2@2000"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="heads",
        statement="The kernel of finitely many heads approaches the exact kernel with an error that falls at least as "
        "the number of heads to the power of -0.45.",
        source="abstract (number of heads); the exact kernel is this library's",
        reported={},
        experiment=HEADS,
        effect=lambda m: math.log(m["gaussian@50"] / m["gaussian@3200"]) / math.log(3200 / 50),
        effect_label="exponent of the fall of the relative error of the kernel, 50 to 3200 heads",
        unit="in the exponent",
        at_least=0.45,
    ),
    Claim(
        name="orthogonal",
        statement="Orthogonal heads approximate the exact kernel with at least a tenth less error than as many "
        "Gaussian heads, for 50 heads.",
        source="this library; not in the paper",
        reported={},
        experiment=HEADS,
        effect=lambda m: 1 - m["orthogonal@50"] / m["gaussian@50"],
        effect_label="share of the relative error of the kernel that orthogonality removes, 50 heads",
        unit="of the error",
        at_least=0.1,
    ),
)
