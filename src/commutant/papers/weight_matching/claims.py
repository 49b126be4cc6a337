"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

from functools import partial

from ...evidence import Claim, Measurement
from .experiments import CIFAR, FASHION, MATCHING, MNIST


def _ratio(m: Measurement, arm: str, what: str = "barrier", width: int = 128) -> float:
    return m[f"w{width}-none@{what}"] / max(m[f"w{width}-{arm}@{what}"], 1e-3)


def _fallen(m: Measurement, arm: str, width: int = 128) -> float:
    return 1 - m[f"w{width}-{arm}@barrier"] / m[f"w{width}-none@barrier"]


def _beyond_distance(m: Measurement, arm: str) -> float:
    """Return the share by which the barrier falls minus the share by which the distance falls."""
    return _fallen(m, arm) - m[f"w128-{arm}@nearer"]


def _taylor_error(m: Measurement, width: int) -> float:
    return abs(m[f"w{width}-wm@taylor"] / m[f"w{width}-wm@train-midpoint"] - 1)


_PAPERS = "(in the paper: MLP of 512 units on CIFAR-10)"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="barrier",
        statement="Weight matching lowers the loss barrier between two MLPs of 128 units per layer on digits more than "
        "fivefold.",
        source="Figures 1 to 3, Table 1",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "wm"),
        effect_label="loss barrier as trained over the barrier after weight matching",
        unit="times",
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
        statement="Weight matching lowers the loss barrier between two MLPs on digits by a share that exceeds the "
        "share by which it lowers the distance of their weights by more than 0.5.",
        source="Table 1 (6 to 20 % closer)",
        reported={},
        experiment=MATCHING,
        effect=partial(_beyond_distance, arm="wm"),
        effect_label="share by which weight matching lowers the barrier minus the share by which it lowers the "
        "distance",
        unit="share",
        at_least=0.5,
        controls={"a random permutation": partial(_beyond_distance, arm="random")},
    ),
    Claim(
        name="singular-directions",
        statement="Weight matching aligns large singular directions more than small ones: alignment R at least doubles "
        "when only singular values above 0.3 of the largest count, in MLPs on digits.",
        source="Figure 2",
        reported={"w128-wm@R-0.3": 0.8, "w128-none@R-0.3": 0.0},
        labels={
            "w128-wm@R-0.3": "alignment R above 0.3 after weight matching (in the paper: MLP of 512 units)",
            "w128-none@R-0.3": "alignment R above 0.3 without a permutation (in the paper: MLP of 512 units)",
        },
        experiment=MATCHING,
        effect=lambda m: m["w128-wm@R-0.3"] / m["w128-wm@R-0"],
        effect_label="alignment R of large singular directions over alignment R of all of them",
        unit="times",
        at_least=2.0,
        controls={"no permutation, over R of all after matching": lambda m: m["w128-none@R-0.3"] / m["w128-wm@R-0"]},
    ),
    *(
        Claim(
            name=f"taylor{name}",
            statement="A second-order Taylor estimate at both ends misses the loss barrier of weight-matched MLPs of "
            f"{width} units per layer on digits by more than 30 %.",
            source="Table 1",
            reported={},
            experiment=MATCHING,
            effect=partial(_taylor_error, width=width),
            effect_label="deviation of the Taylor estimate from the barrier, relative to the barrier",
            unit="of the barrier",
            at_least=0.3,
        )
        for name, width in (("", 128), ("-512", 512))
    ),
    Claim(
        name="activations",
        statement="Activation matching lowers the loss barrier between two MLPs of 128 units per layer on digits more "
        "than fivefold.",
        source="Section 5 (activation matching)",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "am"),
        effect_label="loss barrier as trained over the barrier after activation matching",
        unit="times",
        at_least=5.0,
        controls={"a random permutation": lambda m: _ratio(m, "random")},
    ),
    Claim(
        name="three-models",
        statement="Matching the weights of two MLPs to a third, all trained on digits, lowers the loss barrier between "
        "the two at least fivefold.",
        source="Table 3 (-0.098 for weight matching)",
        reported={"w128-wm@pair": -0.098},
        labels={"w128-wm@pair": f"loss barrier between the two after weight matching {_PAPERS}"},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "wm", "pair"),
        effect_label="loss barrier between the second and third network as trained over that after matching each with "
        "the first",
        unit="times",
        at_least=5.0,
        controls={"random permutations": lambda m: _ratio(m, "random", "pair")},
    ),
    Claim(
        name="ste-directions",
        statement="A search that lowers the loss of the merged network (straight-through, Sinkhorn form) aligns large "
        "singular directions less than half as much as weight matching, in MLPs on digits.",
        source="Figure 3, Table 2 (R about 0 for STE)",
        reported={"w128-ste@R-0.3": 0.0, "w128-wm@R-0.3": 0.8},
        labels={
            "w128-ste@R-0.3": "alignment R above 0.3 after the search (in the paper: MLP of 512 units)",
            "w128-wm@R-0.3": "alignment R above 0.3 after weight matching (in the paper: MLP of 512 units)",
        },
        experiment=MATCHING,
        effect=lambda m: m["w128-wm@R-0.3"] / max(m["w128-ste@R-0.3"], 1e-3),
        effect_label="alignment R of large singular directions after weight matching over that after the search",
        unit="times",
        at_least=2.0,
        controls={
            "the search from the target, with weights matched at each step": lambda m: (
                m["w128-wm@R-0.3"] / max(m["w128-shadow@R-0.3"], 1e-3)
            )
        },
    ),
    Claim(
        name="ste-barrier",
        statement="A search that lowers the loss of the merged network (straight-through, Sinkhorn form) lowers the "
        "loss barrier between two MLPs on digits more than fivefold.",
        source="Table 2",
        reported={},
        experiment=MATCHING,
        effect=lambda m: _ratio(m, "ste"),
        effect_label="loss barrier as trained over the barrier after the search",
        unit="times",
        at_least=5.0,
        controls={"a random permutation": lambda m: _ratio(m, "random")},
    ),
    Claim(
        name="ste-three-models",
        statement="A search that lowers the loss of the merged network leaves more than twice the barrier of weight "
        "matching between two MLPs that were each matched with a third, on digits.",
        source="Table 3 (0.296 for STE, -0.098 for weight matching)",
        reported={"w128-ste@pair": 0.296, "w128-wm@pair": -0.098},
        labels={
            "w128-ste@pair": f"loss barrier between the two after the search {_PAPERS}",
            "w128-wm@pair": f"loss barrier between the two after weight matching {_PAPERS}",
        },
        experiment=MATCHING,
        effect=lambda m: m["w128-ste@pair"] / max(m["w128-wm@pair"], 1e-3),
        effect_label="loss barrier between the second and third network after the search over that after weight "
        "matching",
        unit="times",
        at_least=2.0,
        controls={
            "the search from the target, with weights matched at each step": lambda m: (
                m["w128-shadow@pair"] / max(m["w128-wm@pair"], 1e-3)
            )
        },
    ),
    Claim(
        name="width",
        statement="Wider networks match better: the loss barrier after weight matching is at least three times lower "
        "at 512 units per layer than at 128, in MLPs on digits.",
        source="Git Re-Basin, Figure 4",
        reported={},
        experiment=MATCHING,
        effect=lambda m: m["w128-wm@barrier"] / max(m["w512-wm@barrier"], 1e-3),
        effect_label="loss barrier after weight matching at 128 units per layer over that at 512",
        unit="times",
        at_least=3.0,
        controls={"no permutation": lambda m: m["w128-none@barrier"] / m["w512-none@barrier"]},
    ),
    *(
        Claim(
            name=f"barrier-{name}",
            statement=f"Weight matching removes at least 80 % of the loss barrier between two {networks}.",
            source="Figures 1 to 3, Table 1",
            reported={},
            experiment=experiment,
            effect=partial(_fallen, arm="wm", width=width),
            effect_label="share of the loss barrier as trained that weight matching removes",
            unit="of the barrier",
            at_least=0.8,
            controls={"a random permutation": partial(_fallen, arm="random", width=width)},
        )
        for name, experiment, width, networks in (
            ("mnist", MNIST, 512, "MLPs of 512 units per layer on MNIST"),
            ("fashion-mnist", FASHION, 512, "MLPs of 512 units per layer on Fashion-MNIST"),
            ("cifar", CIFAR, 16, "narrow residual networks with batch norm on CIFAR-10"),
        )
    ),
)
