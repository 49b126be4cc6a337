"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

from functools import partial

from ...evidence import Claim, Measurement
from .experiments import CIFAR, FASHION, MATCHING, MNIST


def _ratio(m: Measurement, arm: str, what: str = "barrier", width: int = 128) -> float:
    return m[f"w{width}-none@{what}"] / max(m[f"w{width}-{arm}@{what}"], 1e-3)


def _fallen(m: Measurement, arm: str, width: int = 128) -> float:
    return 1 - m[f"w{width}-{arm}@barrier"] / m[f"w{width}-none@barrier"]


def _beyond_distance(m: Measurement, arm: str) -> float:
    """The share by which the barrier falls minus the share by which the distance does."""
    return _fallen(m, arm) - m[f"w128-{arm}@nearer"]


def _taylor_error(m: Measurement, width: int) -> float:
    return abs(m[f"w{width}-wm@taylor"] / m[f"w{width}-wm@train-midpoint"] - 1)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="barrier",
        statement="Weight matching lowers the loss barrier between two networks more than fivefold (128 units a "
        "layer).",
        source="Figures 1 to 3, Table 1",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "wm"),
        effect_label="barrier as trained over barrier after weight matching",
        at_least=5.0,
        controls={
            "a random permutation": lambda m: _ratio(m, "random"),
            "no permutation, the merge's logits at the best temperature": lambda m: (
                m["w128-none@barrier"] / max(m["w128-none@cooled"], 1e-3)
            ),
            "no permutation, four times as wide": lambda m: m["w128-none@barrier"] / m["w512-none@barrier"],
        },
    ),
    Claim(
        name="distance",
        statement="The barrier falls by a far larger share than the distance of the weights does: the two differ "
        "by more than half (128 units a layer).",
        source="Table 1 (6 to 20 % closer)",
        reported={},
        experiment=MATCHING,
        effect=partial(_beyond_distance, arm="wm"),
        effect_label="share by which the barrier falls minus that by which the distance falls",
        at_least=0.5,
        controls={"a random permutation": partial(_beyond_distance, arm="random")},
    ),
    Claim(
        name="singular-directions",
        statement="It aligns large singular directions more than small ones: the alignment R doubles when only "
        "singular values above 0.3 of the largest count (128 units a layer).",
        source="Figure 2",
        reported={"wm@R-0.3": 0.8, "none@R-0.3": 0.0},
        experiment=MATCHING,
        effect=lambda m: m["w128-wm@R-0.3"] / m["w128-wm@R-0"],
        effect_label="R above the threshold over R of all",
        at_least=2.0,
        controls={"no permutation, over the same R of all": lambda m: m["w128-none@R-0.3"] / m["w128-wm@R-0"]},
    ),
    *(
        Claim(
            name=f"taylor{name}",
            statement="A second-order Taylor estimate at both ends misses the barrier half way by more than 30 %, "
            f"after matching, at {width} units a layer.",
            source="Table 1",
            reported={},
            experiment=MATCHING,
            effect=partial(_taylor_error, width=width),
            effect_label="relative error of the estimate after matching",
            at_least=0.3,
        )
        for name, width in (("", 128), ("-512", 512))
    ),
    Claim(
        name="activations",
        statement="Matching activations lowers the barrier more than fivefold too (128 units a layer).",
        source="Section 5 (activation matching)",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "am"),
        effect_label="barrier as trained over barrier after activation matching",
        at_least=5.0,
        controls={"a random permutation": lambda m: _ratio(m, "random")},
    ),
    Claim(
        name="three-models",
        statement="Two networks that were each matched with a third have a barrier five times lower between them "
        "(128 units a layer).",
        source="Table 3 (-0.098 for weight matching)",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "wm", "pair"),
        effect_label="barrier between the second and third network as trained over that after matching",
        at_least=5.0,
        controls={"random permutations": lambda m: _ratio(m, "random", "pair")},
    ),
    Claim(
        name="ste-directions",
        statement="A search that lowers the loss of the merge itself (Sinkhorn form, from a random start) aligns "
        "large singular directions less than half as much.",
        source="Figure 3, Table 2 (R about 0 for STE)",
        reported={"ste@R-0.3": 0.0, "wm@R-0.3": 0.8},
        experiment=MATCHING,
        effect=lambda m: m["w128-wm@R-0.3"] / max(m["w128-ste@R-0.3"], 1e-3),
        effect_label="R above the threshold after weight matching over that after the search",
        at_least=2.0,
        controls={
            "the search from the target, with weights matched at each step": lambda m: (
                m["w128-wm@R-0.3"] / max(m["w128-shadow@R-0.3"], 1e-3)
            )
        },
    ),
    Claim(
        name="ste-barrier",
        statement="And yet it lowers the barrier more than fivefold.",
        source="Table 2",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "ste"),
        effect_label="barrier as trained over barrier after the search",
        at_least=5.0,
        controls={"a random permutation": lambda m: _ratio(m, "random")},
    ),
    Claim(
        name="ste-three-models",
        statement="Between two networks that were each matched with a third by that search, the barrier is more "
        "than twice that after weight matching.",
        source="Table 3 (0.296 for STE, -0.098 for weight matching)",
        reported={"ste@pair": 0.296, "wm@pair": -0.098},
        experiment=MATCHING,
        effect=lambda m: m["w128-ste@pair"] / max(m["w128-wm@pair"], 1e-3),
        effect_label="barrier between the second and third network after the search over that after matching",
        at_least=2.0,
        controls={
            "the search from the target, with weights matched at each step": lambda m: (
                m["w128-shadow@pair"] / max(m["w128-wm@pair"], 1e-3)
            )
        },
    ),
    Claim(
        name="width",
        statement="Wider networks match better: at 512 units a layer the barrier left is less than a third of that "
        "at 128.",
        source="Git Re-Basin, Figure 4",
        reported={},
        experiment=MATCHING,
        effect=lambda m: m["w128-wm@barrier"] / max(m["w512-wm@barrier"], 1e-3),
        effect_label="barrier after matching at 128 units over that at 512",
        at_least=3.0,
        controls={"no permutation": lambda m: m["w128-none@barrier"] / m["w512-none@barrier"]},
    ),
    *(
        Claim(
            name=f"barrier-{name}",
            statement=f"Weight matching lowers the barrier more than fivefold {where}.",
            source="Figures 1 to 3, Table 1",
            reported={},
            experiment=experiment,
            effect=partial(_fallen, arm="wm", width=width),
            effect_label="share by which the barrier falls (four fifths is fivefold)",
            at_least=0.8,
            controls={"a random permutation": partial(_fallen, arm="random", width=width)},
        )
        for name, experiment, width, where in (
            ("mnist", MNIST, 512, "between the paper's MLPs on MNIST"),
            ("fashion-mnist", FASHION, 512, "between the paper's MLPs on Fashion-MNIST"),
            ("cifar", CIFAR, 16, "between narrow residual networks with batch norm on CIFAR-10 images"),
        )
    ),
)
