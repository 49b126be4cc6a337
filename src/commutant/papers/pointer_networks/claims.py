"""Claims: statement, effect, bar and controls; figures of the paper are from its tables 1 and 2."""

from __future__ import annotations

from ...evidence import Claim, Measurement
from .experiments import HULLS, LENGTHS, TOURS, TRIANGULATIONS

_UNIT = "of the hulls"
_TABLE_1 = {"pointer": 0.726, "attention": 0.389, "lstm": 0.019}
_LABELS = {"pointer": "pointer network", "attention": "LSTM with attention", "lstm": "LSTM"}


def _least_area(m: Measurement, arm: str) -> float:
    return min(m[f"{arm}-area@15"], m[f"{arm}-area@20"], m[f"{arm}-area@30"])


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="hull",
        statement="A pointer network finds the convex hull of 10 points exactly at least 30 percentage points more "
        "often than an LSTM with a fixed vocabulary.",
        source="table 1 (50 points)",
        reported=_TABLE_1,
        labels=_LABELS,
        reported_effect=0.726 - 0.019,
        experiment=HULLS,
        effect=lambda m: m["pointer"] - m["lstm"],
        effect_label="share of exact hulls, pointer network minus LSTM",
        unit=_UNIT,
        at_least=0.3,
        controls={},
    ),
    Claim(
        name="attention",
        statement="A pointer network finds the convex hull of 10 points exactly more often than an LSTM with attention "
        "and a fixed vocabulary.",
        source="table 1 (50 points)",
        reported=_TABLE_1,
        labels=_LABELS,
        reported_effect=0.726 - 0.389,
        experiment=HULLS,
        effect=lambda m: m["pointer"] - m["attention"],
        effect_label="share of exact hulls, pointer network minus LSTM with attention",
        unit=_UNIT,
        at_least=0.0,
        controls={"LSTM without attention": lambda m: m["lstm"] - m["attention"]},
    ),
    Claim(
        name="tagger",
        statement="A pointer network finds the convex hull of 10 points exactly at least as often as a tagger of hull "
        "points whose points are sorted by angle.",
        source="this library; not in the paper",
        reported={},
        experiment=HULLS,
        effect=lambda m: m["pointer"] - max(m["tagger"], m["deepsets-tagger"]),
        effect_label="share of exact hulls, pointer network minus the better tagger",
        unit=_UNIT,
        at_least=0.0,
        controls={"LSTM": lambda m: m["lstm"] - max(m["tagger"], m["deepsets-tagger"])},
    ),
    Claim(
        name="set-encoder",
        statement="With a set encoder and a loss over all rotations, a pointer network finds the convex hull of 10 "
        "points exactly at least 5 percentage points more often than with the LSTM encoder.",
        source="this library; not in the paper",
        reported={},
        experiment=HULLS,
        effect=lambda m: m["set"] - m["pointer"],
        effect_label="share of exact hulls, set encoder minus LSTM encoder, equal steps",
        unit=_UNIT,
        at_least=0.05,
        controls={"LSTM with attention": lambda m: m["attention"] - m["pointer"]},
    ),
    Claim(
        name="longer",
        statement="A pointer network trained on 5 to 10 points still finds at least 15 % of the hulls of 15 points "
        "exactly.",
        source="table 1 (trained on 5 to 50 points, tested on 100)",
        reported={"pointer@50": 0.696, "pointer@100": 0.503},
        labels={"pointer@50": "50 points", "pointer@100": "100 points"},
        experiment=LENGTHS,
        effect=lambda m: m["pointer@15"],
        effect_label="share of exact hulls of 15 points after training on 5 to 10",
        unit=_UNIT,
        at_least=0.15,
        controls={"30 points": lambda m: m["pointer@30"]},
    ),
    Claim(
        name="area",
        statement="The simple polygons of a pointer network trained on 5 to 10 points cover at least 95 % of the area "
        "of hulls of 15, 20 and 30 points.",
        source="table 1 (500 points after training on 5 to 50)",
        reported={"pointer-area@500": 0.992},
        labels={"pointer-area@500": "500 points"},
        reported_effect=0.992,
        experiment=LENGTHS,
        effect=lambda m: _least_area(m, "pointer"),
        effect_label="least mean covered area over 15, 20 and 30 points, simple polygons only",
        unit="of the area",
        at_least=0.95,
        controls={"simple polygons as a share of all, 30 points": lambda m: m["pointer-simple@30"]},
    ),
    Claim(
        name="set-encoder-lengths",
        statement="Trained on 5 to 10 points, a pointer network with a set encoder finds hulls of 20 points exactly at "
        "least as often as one with the LSTM encoder.",
        source="this library; not in the paper",
        reported={},
        experiment=LENGTHS,
        effect=lambda m: m["set@20"] - m["pointer@20"],
        effect_label="share of exact hulls of 20 points, set encoder minus LSTM encoder",
        unit=_UNIT,
        at_least=0.0,
        controls={},
    ),
    Claim(
        name="triangulation",
        statement="A pointer network finds at least half of the Delaunay triangles of 5 points.",
        source="section 4.3 (5 points)",
        reported={"pointer": 0.807, "pointer-coverage": 0.93},
        labels={"pointer": "exact", "pointer-coverage": "covered"},
        reported_effect=0.93,
        experiment=TRIANGULATIONS,
        effect=lambda m: m["pointer-coverage"],
        effect_label="share of true triangles that are found, 5 points",
        unit="of the triangles",
        at_least=0.5,
        controls={"LSTM": lambda m: m["lstm-coverage"]},
    ),
    Claim(
        name="any-order",
        statement="A loss that lets any missing triangle come next raises the share of exact triangulations of 5 "
        "points.",
        source="this library; not in the paper",
        reported={},
        experiment=TRIANGULATIONS,
        effect=lambda m: m["any-order"] - m["pointer"],
        effect_label="share of exact triangulations, any order minus sorted triangles",
        unit="of the triangulations",
        at_least=0.0,
        controls={"LSTM": lambda m: m["lstm"] - m["pointer"]},
    ),
    Claim(
        name="tours",
        statement="Tours of 10 cities by a pointer network are at most 8 % longer than optimal ones.",
        source="table 2 (10 cities)",
        reported={"pointer@10": 2.88 / 2.87},
        labels={"pointer@10": "pointer network"},
        reported_effect=-(2.88 / 2.87 - 1),
        experiment=TOURS,
        effect=lambda m: 1 - m["pointer@10"],
        effect_label="minus the excess length over optimal tours, 10 cities, beam 10",
        unit="of the optimal length",
        at_least=-0.08,
        controls={"nearest neighbor": lambda m: 1 - m["nearest-neighbor@10"]},
    ),
    Claim(
        name="polish",
        statement="After 2-opt, tours of 10 cities that start from a pointer network are at least 0.5 % shorter than "
        "those that start from nearest neighbors.",
        source="this library; not in the paper",
        reported={},
        experiment=TOURS,
        effect=lambda m: m["nearest-neighbor-polished@10"] - m["polished@10"],
        effect_label="excess length after 2-opt and or-opt, nearest neighbors minus pointer network",
        unit="of the optimal length",
        at_least=0.005,
        controls={
            "greedy edges": lambda m: m["nearest-neighbor-polished@10"] - m["local-search@10"],
        },
    ),
)
