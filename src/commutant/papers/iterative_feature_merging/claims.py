"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

from functools import partial

from ...evidence import Claim, Measurement
from .experiments import CIFAR, FASHION, MERGING


def _beats(m: Measurement, arm: str = "ifm", width: int = 256, share: float = 0.1) -> float:
    """Return the accuracy minus that of the better of two pruning methods at the same widths."""
    others = [m[f"w{width}-{other}@at-{share:g}"] for other in ("random", "magnitude")]
    return m[f"w{width}-{arm}@at-{share:g}"] - max(others)


def _recovered(m: Measurement, width: int) -> float:
    return m[f"w{width}-saliency@planted"] - 1e3 * m[f"w{width}-saliency@planted-gap"]


_PRUNED = "test accuracy after merging minus the better of pruning at random and by magnitude to the same widths"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="pruning",
        statement="Merging features to 10 % of the parameters keeps at least 10 points more test accuracy than pruning "
        "to the same widths, without data or retraining, in MLPs on digits.",
        source="Section 5.2, Figure 4",
        reported={},
        experiment=MERGING,
        effect=_beats,
        effect_label=_PRUNED,
        unit="accuracy",
        at_least=0.1,
        controls={
            "the same rule on clusters filled at random": partial(_beats, arm="pairs"),
        },
    ),
    Claim(
        name="redundancy",
        statement="Wider networks are more redundant: the share of parameters needed to stay within one point of "
        "accuracy at least halves from 32 to 256 units per layer, in MLPs on digits.",
        source="Section 5.1 (larger networks are more redundant)",
        reported={},
        experiment=MERGING,
        effect=lambda m: m["w32-ifm@kept"] / m["w256-ifm@kept"],
        effect_label="share of parameters kept at one point lost, 32 units per layer over 256",
        unit="times",
        at_least=2.0,
        controls={"random pruning": lambda m: m["w32-random@kept"] / m["w256-random@kept"]},
    ),
    Claim(
        name="planted",
        statement="Merging by the bound on the change of the next layer finds planted copies of channels exactly and "
        "restores the widths before copying (a check of this implementation).",
        source="Theorem 3 (comparable features are equal functions)",
        reported={},
        experiment=MERGING,
        effect=lambda m: min(_recovered(m, 32), _recovered(m, 256)),
        effect_label="share of layers restored to their width, minus a thousand times the relative change of the "
        "outputs",
        unit="of the layers",
        at_least=0.99,
        basis="identity",
        cases=lambda m: m["w32@layers"] + m["w256@layers"],
        controls={"the paper's distance, which counts what reads the channels": lambda m: m["w256-ifm@planted"]},
        refutable_at=("small", "full"),
    ),
    Claim(
        name="folding",
        statement="Folding (averaging incoming and adding outgoing weights) by the bound on the change of the next "
        "layer keeps at least 2 points more accuracy than the paper's rule at 5 % of the parameters.",
        source="this library; not in the paper",
        reported={},
        experiment=MERGING,
        effect=lambda m: m["w256-saliency@at-0.05"] - m["w256-ifm@at-0.05"],
        effect_label="test accuracy of folding by the bound minus the paper's rule, 5 % of the parameters",
        unit="accuracy",
        at_least=0.02,
        controls={"folding by the paper's distance": lambda m: m["w256-fold@at-0.05"] - m["w256-ifm@at-0.05"]},
    ),
    Claim(
        name="activations",
        statement="Folding that measures channels on a thousand unlabeled inputs keeps at least 2 points more accuracy "
        "than folding without data at 5 % of the parameters.",
        source="this library; not in the paper",
        reported={},
        experiment=MERGING,
        effect=lambda m: m["w256-activations@at-0.05"] - m["w256-saliency@at-0.05"],
        effect_label="test accuracy of folding with data minus folding without, 5 % of the parameters",
        unit="accuracy",
        at_least=0.02,
    ),
    *(
        Claim(
            name=f"pruning-{name}",
            statement=f"Merging features to {share:.0%} of the parameters keeps at least 10 points more test accuracy "
            f"than pruning to the same widths, without data or retraining, in {where}.",
            source="Section 5.2, Figure 4",
            reported={},
            experiment=experiment,
            effect=partial(_beats, width=width, share=share),
            effect_label=_PRUNED,
            unit="accuracy",
            at_least=0.1,
            controls={
                "the same rule on clusters filled at random": partial(_beats, arm="pairs", width=width, share=share)
            },
        )
        for name, experiment, width, share, where in (
            ("fashion-mnist", FASHION, 512, 0.1, "an MLP on Fashion-MNIST"),
            ("cifar", CIFAR, 32, 0.25, "a convolutional network with batch norm on CIFAR-10"),
        )
    ),
)
