"""Claims: statement, effect, bar, controls and the numbers reported in the paper."""

from __future__ import annotations

from ...evidence import Claim
from .experiments import ROUTES, SHAPES

_EITHER = ("small", "full")

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="shapes",
        statement="A PointNet trained on upright objects alone classifies objects that are rotated at least 50 points "
        "more accurately from invariant coordinates than from raw ones.",
        source="abstract; no figure of the paper could be read",
        reported={},
        experiment=SHAPES,
        effect=lambda m: m["maxabs@similar"] - m["raw@any"],
        effect_label="test accuracy with invariant coordinates (objects rotated, scaled and shifted) minus with raw "
        "ones (objects rotated)",
        unit="accuracy",
        at_least=0.5,
        controls={"raw coordinates, rotated any way in training": lambda m: m["augmented@any"] - m["raw@any"]},
    ),
    Claim(
        name="strict",
        statement="The logits of a PointNet on invariant coordinates change by at most 0.01 when an object is rotated, "
        "scaled and shifted.",
        source="abstract (strictly invariant)",
        reported={},
        experiment=SHAPES,
        effect=lambda m: 1 - max(m["maxabs@moved"], m["skew@moved"]),
        effect_label="share of objects whose logits stay the same when they are moved, the worse of two sign rules",
        unit="of the objects",
        at_least=0.99,
        basis="identity",
        cases=lambda m: m["objects"],
        controls={
            "coordinates without a rule": lambda m: 1 - m["no-rule@moved"],
            "random signs": lambda m: 1 - m["random@moved"],
        },
        refutable_at=_EITHER,
    ),
    Claim(
        name="nothing-lost",
        statement="A PointNet on invariant coordinates classifies objects rotated about the vertical, as in training, "
        "at most 5 points less accurately than one on raw coordinates.",
        source="abstract (no information is lost)",
        reported={},
        experiment=SHAPES,
        effect=lambda m: m["maxabs@z"] - m["raw@z"],
        effect_label="test accuracy with invariant coordinates minus with raw ones, objects rotated as in training",
        unit="accuracy",
        at_least=-0.05,
    ),
    Claim(
        name="routes",
        statement="A solver of the traveling salesman problem on invariant coordinates plans the same tour after a map "
        "with clear axes and signs is rotated, scaled and shifted.",
        source="abstract (combinatorial optimization); no figure of the paper could be read",
        reported={},
        experiment=ROUTES,
        effect=lambda m: m["maxabs@same-all"],
        effect_label="share of maps with clear axes and signs whose tour stays when the map is moved",
        unit="of the maps",
        at_least=0.99,
        basis="identity",
        cases=lambda m: m["maps"],
        controls={
            "raw coordinates": lambda m: m["raw@same-all"],
            "coordinates without a rule": lambda m: m["no-rule@same-all"],
        },
        refutable_at=_EITHER,
    ),
    Claim(
        name="routes-gap",
        statement="A solver of the traveling salesman problem plans tours on invariant coordinates that are longer by "
        "at most 0.5 % of the shortest tour than on raw coordinates.",
        source="abstract; no figure of the paper could be read",
        reported={},
        experiment=ROUTES,
        effect=lambda m: m["raw@gap-as-is"] - m["maxabs@gap-as-is"],
        effect_label="gap to the shortest tour with raw coordinates minus with invariant ones",
        unit="of the shortest tour",
        at_least=-0.005,
    ),
)
