"""Claims: statement, effect, bar and controls; figures of the paper are squared errors of a row with 10 features."""

from __future__ import annotations

from ...evidence import Claim, Measurement, series
from .experiments import CONSTRUCTION, DECODER, LEARNING

_EITHER = ("small", "full")
_SOURCE = "appendix B (10 rows)"
_ERROR = "squared error of a row"


def _rows(m: Measurement) -> int:
    """Return the number of rows, which is the largest number of scratch tokens."""
    return int(max(series(m, "scratch")))


def _scratch(m: Measurement, arm: str) -> int:
    return int(max(series(m, arm)))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="construction",
        statement="Explicit weights of two attention layers undo every permutation of rows of bits, without a mask and "
        "with a causal mask and scratch tokens.",
        source="theorems 2 and 3",
        reported={},
        experiment=CONSTRUCTION,
        effect=lambda m: -max(m["paper-none-bits"], m["paper-causal-bits"]),
        effect_label="minus the largest error of an entry, weights of the paper, rows of bits, float64",
        unit="in an entry",
        at_least=-1e-20,
        controls={"normal values": lambda m: -max(m["paper-none-normal"], m["paper-causal-normal"])},
        basis="identity",
        cases=lambda m: m["cases"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="robust-construction",
        statement="Other weights of two attention layers undo every permutation of rows of any values, with one "
        "scratch token less and without a beginning token.",
        source="this library; theorems 2 and 3 need values between 0 and 1",
        reported={},
        experiment=CONSTRUCTION,
        effect=lambda m: -max(m["robust-none-normal"], m["robust-causal-normal"]),
        effect_label="minus the largest error of an entry, robust weights, normal values, float64",
        unit="in an entry",
        at_least=-1e-20,
        controls={"weights of the paper": lambda m: -max(m["paper-none-normal"], m["paper-causal-normal"])},
        basis="identity",
        cases=lambda m: m["cases"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="impossible",
        statement="A causal network that writes its output before the permuted rows arrive is no better than the "
        "constant answer one half.",
        source=_SOURCE,
        reported={"first": 2.5, "free": 0.00015},
        labels={"first": "causal", "free": "no mask"},
        experiment=LEARNING,
        effect=lambda m: m["first"] - m["floor-first"],
        effect_label="squared error of a row minus that of the constant answer, causal, first rows read",
        unit=_ERROR,
        at_least=-0.01,
        controls={"no mask": lambda m: m["free"] - m["floor-first"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="floor",
        statement="A causal network that writes its output in the last rows, without scratch tokens, has at least the "
        "error that the unseen rows leave.",
        source="this library; theorem 1 in quantities",
        reported={},
        experiment=LEARNING,
        effect=lambda m: m["scratch@0"] - m["floor@0"],
        effect_label="squared error of a row minus the least possible one, no scratch tokens, last rows read",
        unit=_ERROR,
        at_least=-0.01,
        controls={"no mask": lambda m: m["free"] - m["floor@0"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="scratch",
        statement="With as many scratch tokens as rows, a causal network learns to undo permutations to a squared "
        "error of a row below 0.05.",
        source=_SOURCE,
        reported={"scratch@6": 0.00013},
        labels={"scratch@6": "10 scratch tokens for 10 rows"},
        reported_effect=-0.00013,
        experiment=LEARNING,
        effect=lambda m: -m[f"scratch@{_rows(m)}"],
        effect_label="minus the squared error of a row, as many scratch tokens as rows",
        unit=_ERROR,
        at_least=-0.05,
        controls={"no scratch tokens": lambda m: -m["scratch@0"]},
    ),
    Claim(
        name="fewer-scratch",
        statement="With one scratch token less than rows, a causal network learns to undo permutations to a squared "
        "error of a row below 0.05.",
        source="this library; the paper uses as many as rows",
        reported={},
        experiment=LEARNING,
        effect=lambda m: -m[f"scratch@{_rows(m) - 1}"],
        effect_label="minus the squared error of a row, d - 1 scratch tokens for d rows",
        unit=_ERROR,
        at_least=-0.05,
        controls={"d - 2 scratch tokens": lambda m: -m[f"scratch@{_rows(m) - 2}"]},
    ),
    Claim(
        name="reversed",
        statement="If the permuted rows come before the permutation, a causal network of two layers learns to undo "
        "permutations with d - 1 scratch tokens.",
        source="remark after theorem 1, which this library corrects: the proof does not carry over",
        reported={},
        experiment=LEARNING,
        effect=lambda m: -m[f"reversed@{_rows(m) - 1}"],
        effect_label="minus the squared error of a row, permuted rows first, d - 1 scratch tokens",
        unit=_ERROR,
        at_least=-0.05,
        controls={"no scratch tokens": lambda m: -m["reversed@0"]},
    ),
    Claim(
        name="decoder",
        statement="A standard decoder of four layers gets at least 0.2 more of the rows right with d - 1 scratch "
        "tokens than any causal network can without them.",
        source="this library; not in the paper",
        reported={},
        experiment=DECODER,
        effect=lambda m: m[f"vectors@{_scratch(m, 'vectors')}"] - m["most-vectors@0"],
        effect_label="share of rows that are right, with scratch tokens, minus the most possible without",
        unit="of the rows",
        at_least=0.2,
        controls={"no scratch tokens": lambda m: m["vectors@0"] - m["most-vectors@0"]},
    ),
    Claim(
        name="tokens",
        statement="With numbers and letters as tokens, a standard decoder of four layers gets at least 0.2 more of the "
        "letters right with d - 1 scratch tokens than any causal network can without them.",
        source="this library; not in the paper",
        reported={},
        experiment=DECODER,
        effect=lambda m: m[f"tokens@{_scratch(m, 'tokens')}"] - m["most-tokens@0"],
        effect_label="share of letters that are right, with scratch tokens, minus the most possible without",
        unit="of the letters",
        at_least=0.2,
        controls={"no scratch tokens": lambda m: m["tokens@0"] - m["most-tokens@0"]},
    ),
)
