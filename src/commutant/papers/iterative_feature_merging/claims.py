"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

from functools import partial

from ...evidence import Claim, Measurement
from .experiments import CIFAR, FASHION, MERGING


def _beats(m: Measurement, arm: str = "ifm", width: int = 256, share: float = 0.1) -> float:
    """Accuracy above the better of two ways to prune to the same widths."""
    others = [m[f"w{width}-{other}@at-{share:g}"] for other in ("random", "magnitude")]
    return m[f"w{width}-{arm}@at-{share:g}"] - max(others)


def _recovered(m: Measurement, width: int) -> float:
    return m[f"w{width}-saliency@planted"] - 1e3 * m[f"w{width}-saliency@planted-gap"]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="pruning",
        statement="Without data or retraining, a network merged to a tenth of its parameters is more than ten "
        "points more accurate than one pruned to the same widths at random or by magnitude.",
        source="Section 5.2, Figure 4",
        reported={},
        experiment=MERGING,
        effect=_beats,
        effect_label="accuracy above the better of two ways to prune to the same widths",
        at_least=0.1,
        controls={
            "the same rule on clusters filled at random": partial(_beats, arm="pairs"),
        },
    ),
    Claim(
        name="redundancy",
        statement="Wider networks are more redundant: at one point of accuracy the share of the parameters that "
        "must be kept halves, at least, from 32 to 256 units a layer.",
        source="Section 5.1 (larger networks are more redundant)",
        reported={},
        experiment=MERGING,
        effect=lambda m: m["w32-ifm@kept"] / m["w256-ifm@kept"],
        effect_label="share kept at 32 units over that at 256",
        at_least=2.0,
        controls={"random pruning": lambda m: m["w32-random@kept"] / m["w256-random@kept"]},
    ),
    Claim(
        name="planted",
        statement="Copies of channels, read with other weights than their originals, are found exactly by the "
        "bound on what a merge changes: the widths before copying come back (a check of this implementation).",
        source="Theorem 3 (comparable features are equal functions)",
        reported={},
        experiment=MERGING,
        effect=lambda m: min(_recovered(m, 32), _recovered(m, 256)),
        effect_label="share of layers brought back to their width, less a thousand times the change of the outputs",
        at_least=0.99,
        basis="identity",
        cases=lambda m: m["w32@layers"] + m["w256@layers"],
        controls={"the paper's distance, which counts what reads the channels": lambda m: m["w256-ifm@planted"]},
    ),
    Claim(
        name="folding",
        statement="Averaging what makes the channels and adding what reads them, by the bound, keeps two points "
        "more than the paper's rule at a twentieth of the parameters.",
        source="this library; not in the paper",
        reported={},
        experiment=MERGING,
        effect=lambda m: m["w256-saliency@at-0.05"] - m["w256-ifm@at-0.05"],
        effect_label="accuracy above that of the paper's rule",
        at_least=0.02,
        controls={"folding by the paper's distance": lambda m: m["w256-fold@at-0.05"] - m["w256-ifm@at-0.05"]},
    ),
    Claim(
        name="activations",
        statement="With a thousand unlabelled inputs to measure the difference of channels on, two more points.",
        source="this library; not in the paper",
        reported={},
        experiment=MERGING,
        effect=lambda m: m["w256-activations@at-0.05"] - m["w256-saliency@at-0.05"],
        effect_label="accuracy above that without data",
        at_least=0.02,
    ),
    *(
        Claim(
            name=f"pruning-{name}",
            statement=f"Ten points above pruning to the same widths, {share:.0%} of the parameters left, {where}.",
            source="Section 5.2, Figure 4",
            reported={},
            experiment=experiment,
            effect=partial(_beats, width=width, share=share),
            effect_label="accuracy above the better of two ways to prune to the same widths",
            at_least=0.1,
            controls={
                "the same rule on clusters filled at random": partial(_beats, arm="pairs", width=width, share=share)
            },
        )
        for name, experiment, width, share, where in (
            ("fashion-mnist", FASHION, 512, 0.1, "for an MLP on Fashion-MNIST"),
            ("cifar", CIFAR, 32, 0.25, "for a convolutional network with batch norm on CIFAR-10 images"),
        )
    ),
)
