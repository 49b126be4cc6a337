"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

from ...evidence import Claim
from .experiments import ROUTES, SHAPES

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="shapes",
        statement="With invariant coordinates, a network that never saw an object turned out of the upright keeps "
        "its accuracy on objects turned any way, scaled and shifted: 50 points above the same network without.",
        source="abstract; no figure of the paper could be read",
        reported={},
        experiment=SHAPES,
        effect=lambda m: m["maxabs@similar"] - m["raw@any"],
        effect_label="accuracy on moved objects, above raw coordinates on turned ones",
        at_least=0.5,
        controls={"turned any way in training": lambda m: m["augmented@any"] - m["raw@any"]},
    ),
    Claim(
        name="strict",
        statement="The invariance is strict: no logit of any object changes by more than a hundredth.",
        source="abstract (strictly invariant)",
        reported={},
        experiment=SHAPES,
        effect=lambda m: 1 - max(m["maxabs@moved"], m["skew@moved"]),
        effect_label="share of objects whose logits stay, the worse of two rules",
        at_least=0.99,
        basis="identity",
        cases=lambda m: m["objects"],
        controls={
            "coordinates without a rule": lambda m: 1 - m["no-rule@moved"],
            "random signs": lambda m: 1 - m["random@moved"],
        },
    ),
    Claim(
        name="nothing-lost",
        statement="On objects turned as in training, invariant coordinates cost at most five points.",
        source="abstract (no information is lost)",
        reported={},
        experiment=SHAPES,
        effect=lambda m: m["maxabs@z"] - m["raw@z"],
        effect_label="accuracy above raw coordinates, both as trained",
        at_least=-0.05,
    ),
    Claim(
        name="routes",
        statement="A solver of the travelling salesman problem that reads invariant coordinates plans the same "
        "tour when the map is turned by any angle, scaled and shifted, where axes and signs are not in doubt.",
        source="abstract (combinatorial optimisation); no figure of the paper could be read",
        reported={},
        experiment=ROUTES,
        effect=lambda m: m["maxabs@same-all"],
        effect_label="share of tours that stay when the map is moved, of maps with clear axes and signs",
        at_least=0.99,
        basis="identity",
        cases=lambda m: m["maps"],
        controls={
            "raw coordinates": lambda m: m["raw@same-all"],
            "coordinates without a rule": lambda m: m["no-rule@same-all"],
        },
    ),
    Claim(
        name="routes-gap",
        statement="Its tours are no longer than those of the solver that reads raw coordinates, to half a point.",
        source="abstract; no figure of the paper could be read",
        reported={},
        experiment=ROUTES,
        effect=lambda m: m["raw@gap-as-is"] - m["maxabs@gap-as-is"],
        effect_label="gap to the shortest tours that it saves",
        at_least=-0.005,
    ),
)
