"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

import statistics

from ...evidence import Claim
from .experiments import BATCH, COST, DIGITS, GRAPHS, SECOND_MINIMUM
from .measures import step_height

_NAMES = {
    "binary-gru": "LCM",
    "binary-gru-assoc": "LCM with the associativity loss",
    "gru": "GRU fold",
    "pna": "PNA",
    "max": "max",
    "sum": "sum",
}


def _labels(*keys: str) -> dict[str, str]:
    """Return words for figures called `arm@size`."""
    return {key: f"{_NAMES[arm]}, sets of {size}" for key, (arm, size) in ((key, key.split("@")) for key in keys)}


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="second-minimum",
        statement="LCM finds the second minimum of 32 numbers exactly far more often than sum or max aggregation, "
        "after training on sets of at most 16.",
        source="Section 3.1, Table 2",
        reported={
            "binary-gru@32": 0.992,
            "sum@32": 0.261,
            "max@32": 0.723,
            "gru@32": 0.998,
            "binary-gru@200": 0.443,
            "sum@200": 0.045,
            "max@200": 0.069,
            "gru@200": 0.912,
        },
        labels=_labels(*(f"{arm}@{n}" for n in (32, 200) for arm in ("binary-gru", "sum", "max", "gru"))),
        experiment=SECOND_MINIMUM,
        effect=lambda m: m["binary-gru@32"] - max(m["sum@32"], m["max@32"]),
        effect_label="accuracy of LCM minus the better of sum and max aggregation, sets of 32",
        unit="accuracy",
        at_least=0.2,
        reported_effect=0.992 - 0.723,
        controls={
            "sum with as many parameters": lambda m: m["sum-wide@32"] - max(m["sum@32"], m["max@32"]),
            "best constant answer": lambda m: m["constant@32"] - max(m["sum@32"], m["max@32"]),
        },
    ),
    Claim(
        name="beyond-pna",
        statement="LCM finds the second minimum of 100 numbers more often than PNA, which combines four fixed "
        "aggregations, after training on sets of at most 16.",
        source="Section 3.1, Table 2",
        reported={"binary-gru@200": 0.443, "pna@200": 0.110, "binary-gru@32": 0.992, "pna@32": 0.794},
        labels=_labels("binary-gru@200", "pna@200", "binary-gru@32", "pna@32"),
        experiment=SECOND_MINIMUM,
        effect=lambda m: m["binary-gru@100"] - m["pna@100"],
        effect_label="accuracy of LCM minus PNA, sets of 100 (in the paper: sets of 200)",
        unit="accuracy",
        at_least=0.12,
        reported_effect=0.443 - 0.110,
        controls={"best constant answer": lambda m: m["constant@100"] - m["pna@100"]},
    ),
    Claim(
        name="associativity-loss",
        statement="The associativity loss raises the accuracy of LCM at finding the second minimum of 200 numbers, "
        "after training on sets of at most 16.",
        source="Section 3.1, Table 2",
        reported={"binary-gru-assoc@200": 0.822, "binary-gru@200": 0.443},
        labels=_labels("binary-gru-assoc@200", "binary-gru@200"),
        experiment=SECOND_MINIMUM,
        effect=lambda m: m["binary-gru-assoc@200"] - m["binary-gru@200"],
        effect_label="accuracy of LCM with the associativity loss (weight 1) minus without, sets of 200",
        unit="accuracy",
        at_least=0.1,
        reported_effect=0.822 - 0.443,
        controls={},
    ),
    Claim(
        name="power-of-two-steps",
        statement="LCM without the associativity loss loses more accuracy where the set size passes a power of two, "
        "and its tree grows by a level, than halfway between two powers.",
        source="Section 3.1, Figure 4",
        reported={},
        experiment=SECOND_MINIMUM,
        effect=lambda m: step_height(m, "binary-gru"),
        effect_label="accuracy lost from n to 9/8 n at powers of two minus that lost from 3/2 n to 13/8 n",
        unit="accuracy",
        at_least=0.01,
        controls={"GRU fold, which has no tree": lambda m: step_height(m, "gru")},
    ),
    Claim(
        name="smoother-steps",
        statement="The associativity loss flattens the steps in the accuracy of LCM at set sizes that are powers of "
        "two.",
        source="Section 3.1, Figure 4",
        reported={},
        experiment=SECOND_MINIMUM,
        effect=lambda m: step_height(m, "binary-gru") - step_height(m, "binary-gru-assoc"),
        effect_label="step height of LCM without the associativity loss minus with it",
        unit="accuracy",
        at_least=0.01,
        controls={},
    ),
    Claim(
        name="random-bracketing",
        statement="Training LCM with a random bracketing in every step, without the associativity loss, raises its "
        "accuracy at finding the second minimum of 200 numbers.",
        source="this library; not in the paper",
        reported={},
        experiment=SECOND_MINIMUM,
        effect=lambda m: m["binary-gru-random@200"] - m["binary-gru@200"],
        effect_label="accuracy of LCM trained with random bracketing minus with balanced trees only, sets of 200",
        unit="accuracy",
        at_least=0.05,
        controls={"sets as large as in training": lambda m: m["binary-gru-random@train"] - m["binary-gru@train"]},
    ),
    Claim(
        name="logarithmic-depth",
        statement="LCM aggregates sets of 200 elements at least 1.5 times as fast as a recurrent aggregation, because "
        "its depth is logarithmic in the set size.",
        source="Section 3.1.2",
        reported={"gru@200": 397.2, "binary-gru@200": 79.4},
        labels={
            "gru@200": "GRU fold, sets of 200: seconds (in the paper: an epoch on a GPU)",
            "binary-gru@200": "LCM, sets of 200: seconds (in the paper: an epoch on a GPU)",
        },
        experiment=COST,
        effect=lambda m: m["gru@200"] / m["binary-gru@200"],
        effect_label="time of the GRU fold over the time of LCM, sets of 200, forward and backward",
        unit="times",
        at_least=1.5,
        reported_effect=397.2 / 79.4,
        controls={"sets of two, where both have the same depth": lambda m: m["gru@2"] / m["binary-gru@2"]},
        refutable_at=("small", "full"),
    ),
    Claim(
        name="real-input",
        statement="LCM classifies handwritten digits, given as sets of pixels, more accurately than sum aggregation.",
        source="Section 3.3, Figure 2 (MNIST superpixels)",
        reported={"binary-gru": 0.9779, "sum": 0.9672, "max": 0.9737, "gru": 0.9815},
        labels={"binary-gru": "LCM", "sum": "sum", "max": "max", "gru": "GRU fold"},
        experiment=DIGITS,
        effect=lambda m: m["binary-gru"] - m["sum"],
        effect_label="test accuracy of LCM minus sum aggregation",
        unit="accuracy",
        at_least=0.005,
        reported_effect=0.9779 - 0.9672,
        controls={"sum with as many parameters": lambda m: m["sum-wide"] - m["sum"]},
    ),
    Claim(
        name="graph-classification",
        statement="A message-passing network with LCM aggregation classifies molecules at most 3 points "
        "less accurately than one with sum aggregation.",
        source="Section 3.3, Figure 2",
        reported={},
        experiment=GRAPHS,
        effect=lambda m: statistics.fmean(m[k] - m[k.replace("binary-gru-random", "sum")] for k in m if "binary" in k),
        effect_label="test accuracy with LCM minus with sum aggregation, mean over data sets",
        unit="accuracy",
        at_least=-0.03,
        controls={},
    ),
    Claim(
        name="batch-dependence",
        statement="The GRU, LSTM and LCM aggregations of PyTorch Geometric change the result of a set when larger sets "
        "join its batch, whereas those of this library do not.",
        source="this library; not in the paper",
        reported={},
        experiment=BATCH,
        effect=lambda m: min(m["pyg-gru"], m["pyg-lstm"], m["pyg-lcm"]),
        effect_label="change of a set's result when larger sets join its batch, relative to the spread of results, "
        "smallest of PyG's GRU, LSTM and LCM",
        unit="times the spread",
        at_least=0.1,
        basis="identity",
        cases=lambda m: 3.0,  # aggregations of PyTorch Geometric
        controls={"this library's LCM and GRU fold": lambda m: max(m["lcm"], m["gru"])},
        refutable_at=("small", "full"),
    ),
)
