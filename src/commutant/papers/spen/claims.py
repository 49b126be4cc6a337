"""Claims: statement, effect, bar and controls. The tables of the paper could not be read, so no figure of it is
given."""

from __future__ import annotations

import math

from ...evidence import Claim, Measurement
from .experiments import CLASSIFICATION, COLLECTION, COUNTS, FOUR_CYCLES, MEMORY, SEPARATION, TRIANGLES, TU

_EITHER = ("small", "full")
_STRONGLY_REGULAR = ("sr16", "sr25", "sr26", "sr28", "sr29")
_POWER = "abstract (expressivity); no figure of the paper could be read"


def _regular_pairs(m: Measurement) -> float:
    return sum(m[f"pairs@{name}"] for name in _STRONGLY_REGULAR)


def _share_equal(m: Measurement, *arms: str) -> float:
    """Return the smallest share, over arms, of pairs of strongly regular graphs that are not told apart."""
    return min(sum(m[f"{arm}@{name}"] for name in _STRONGLY_REGULAR) / _regular_pairs(m) for arm in arms)


def _growth(m: Measurement, arm: str, low: int, high: int) -> float:
    """Return the exponent of memory in the number of nodes."""
    return math.log(m[f"{arm}@{high}"] / m[f"{arm}@{low}"]) / math.log(high / low)


def _over_collection(m: Measurement, arm: str, rival: str) -> float:
    """Return the difference of two arms' test accuracies, averaged over the five data sets."""
    return sum(m[f"{arm}@{name}"] - m[f"{rival}@{name}"] for name in TU) / len(TU)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="triangles",
        statement="SPEN with one hop tells 3-regular graphs with triangles from those without, which message passing "
        "cannot.",
        source=_POWER,
        reported={},
        experiment=TRIANGLES,
        effect=lambda m: m["spen"],
        effect_label="test accuracy of SPEN with one hop, triangle or not",
        unit="accuracy",
        at_least=0.95,
        controls={"GIN (1-WL)": lambda m: m["gin"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="four-cycles",
        statement="Rooted SPEN with two hops tells triangle-free 3-regular graphs with 4-cycles from those without.",
        source=_POWER + "; the rooted maps are this library's",
        reported={},
        experiment=FOUR_CYCLES,
        effect=lambda m: m["rooted"],
        effect_label="test accuracy of rooted SPEN with two hops, 4-cycle or not",
        unit="accuracy",
        at_least=0.97,
        controls={
            "GIN (1-WL)": lambda m: m["gin"],
            "one hop, means, no GraphNorm": lambda m: m["mean"],
        },
    ),
    Claim(
        name="subgraph-networks",
        statement="Rooted SPEN with two hops finds 4-cycles in triangle-free 3-regular graphs at least as accurately "
        "as the subgraph networks NGNN and SSWL do after as many epochs, to within one point.",
        source="this library; not in the paper",
        reported={},
        experiment=FOUR_CYCLES,
        effect=lambda m: m["rooted"] - max(m["ngnn"], m["sswl"]),
        effect_label="test accuracy of rooted SPEN minus the better of NGNN and SSWL, two hops each",
        unit="accuracy",
        at_least=-0.01,
        controls={"GIN (1-WL)": lambda m: m["gin"] - max(m["ngnn"], m["sswl"])},
    ),
    Claim(
        name="sums-see-four-cycles",
        statement="SPEN with one hop finds 4-cycles if the ego-nets of a pair are summed instead of averaged.",
        source="this library; not in the paper",
        reported={},
        experiment=FOUR_CYCLES,
        effect=lambda m: m["sum"],
        effect_label="test accuracy of SPEN with one hop and sums, 4-cycle or not",
        unit="accuracy",
        at_least=0.8,
        controls={"one hop, means, no GraphNorm": lambda m: m["mean"]},
    ),
    Claim(
        name="norm-sees-four-cycles",
        statement="SPEN with one hop and means finds 4-cycles through GraphNorm alone, whose statistics count pairs.",
        source="this library; not in the paper",
        reported={},
        experiment=FOUR_CYCLES,
        effect=lambda m: m["norm"],
        effect_label="test accuracy of SPEN with one hop, means and GraphNorm, 4-cycle or not",
        unit="accuracy",
        at_least=0.8,
        controls={"one hop, means, no GraphNorm": lambda m: m["mean"]},
    ),
    Claim(
        name="counts",
        statement="Rooted SPEN with two hops counts cycles of 3 to 6 nodes of 3-regular graphs with at most a third "
        "of the error of GIN.",
        source="this library; not in the paper",
        reported={},
        experiment=COUNTS,
        effect=lambda m: min(m[f"gin@{k}"] / m[f"two-hops@{k}"] for k in (3, 4, 5, 6)),
        effect_label="mean absolute error of GIN over that of SPEN with two hops, the smallest ratio of four lengths",
        unit="times",
        at_least=3.0,
        controls={"one hop": lambda m: min(m[f"gin@{k}"] / m[f"one-hop@{k}"] for k in (3, 4, 5, 6))},
    ),
    Claim(
        name="one-hop-counts",
        statement="Rooted SPEN with one hop counts triangles of 3-regular graphs with at most a fifth of the error of "
        "GIN.",
        source="this library; not in the paper",
        reported={},
        experiment=COUNTS,
        effect=lambda m: m["gin@3"] / m["one-hop@3"],
        effect_label="mean absolute error of GIN over that of SPEN with one hop, triangles",
        unit="times",
        at_least=5.0,
        controls={"5-cycles": lambda m: m["gin@5"] / m["one-hop@5"]},
    ),
    Claim(
        name="exp",
        statement="SPEN with two hops and random weights tells apart all 600 pairs of EXP, which color refinement "
        "cannot.",
        source="this library; not in the paper",
        reported={},
        experiment=SEPARATION,
        effect=lambda m: 1 - m["two-hops@exp"] / m["pairs@exp"],
        effect_label="share of EXP pairs told apart by SPEN with two hops",
        unit="of the pairs",
        at_least=0.99,
        basis="share",
        cases=lambda m: m["pairs@exp"],
        controls={
            "one hop": lambda m: 1 - m["one-hop-sum@exp"] / m["pairs@exp"],
            "GIN (1-WL)": lambda m: 1 - m["gin@exp"] / m["pairs@exp"],
        },
        refutable_at=_EITHER,
    ),
    Claim(
        name="eight-nodes",
        statement="SPEN with one hop, sums and random weights confuses at most a hundredth of the pairs of 8-node "
        "graphs that color refinement (1-WL) confuses.",
        source="this library; not in the paper",
        reported={},
        experiment=SEPARATION,
        effect=lambda m: m["refinement@graph8c"] / max(m["one-hop-sum@graph8c"], 1),
        effect_label="pairs of 8-node graphs that color refinement confuses over those that SPEN confuses (at least "
        "one)",
        unit="times",
        at_least=100.0,
        controls={"two hops": lambda m: m["refinement@graph8c"] / max(m["two-hops@graph8c"], 1)},
        refutable_at=_EITHER,
    ),
    Claim(
        name="strongly-regular",
        statement="No SPEN, rooted or not, with one hop or two, tells apart strongly regular graphs with the same "
        "parameters.",
        source="this library; an open question in the paper",
        reported={},
        experiment=SEPARATION,
        effect=lambda m: _share_equal(
            m, "one-hop", "one-hop-sum", "one-hop-norm", "two-hops", "rooted", "rooted-two-hops"
        ),
        effect_label="share of pairs of strongly regular graphs that are not told apart, the smallest of six networks",
        unit="of the pairs",
        at_least=0.99,
        basis="share",
        cases=_regular_pairs,
        controls={"pairs of 8-node graphs": lambda m: m["one-hop@graph8c"] / m["pairs@graph8c"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="memory",
        statement="The memory that training SPEN keeps grows linearly with the number of nodes of 3-regular graphs, "
        "where that of a layer on all pairs grows quadratically.",
        source="abstract (memory); no figure of the paper could be read",
        reported={},
        experiment=MEMORY,
        effect=lambda m: 2 - max(_growth(m, arm, 1000, 10_000) for arm in ("one-hop", "two-hops")),
        effect_label="2 minus the exponent of memory in the number of nodes, 1000 to 10 000 nodes, one hop and two",
        unit="in the exponent",
        at_least=0.9,
        controls={"a layer on all pairs": lambda m: 2 - _growth(m, "global", 200, 400)},
        refutable_at=_EITHER,
    ),
    Claim(
        name="memory-at-400",
        statement="Training SPEN with one hop keeps at most a fifth of the memory of a layer on all pairs, on a "
        "3-regular graph of 400 nodes.",
        source="abstract (memory); no figure of the paper could be read",
        reported={},
        experiment=MEMORY,
        effect=lambda m: m["global@400"] / m["one-hop@400"],
        effect_label="bytes kept by a layer on all pairs over those kept by SPEN with one hop, 400 nodes",
        unit="times",
        at_least=5.0,
        controls={"100 nodes": lambda m: m["global@100"] / m["one-hop@100"]},
        refutable_at=_EITHER,
    ),
    Claim(
        name="mutag",
        statement="SPEN classifies the molecules of MUTAG at least as accurately as GIN with as many parameters, to "
        "within one point.",
        source="abstract (six of seven benchmarks); no figure of the paper could be read",
        reported={},
        experiment=CLASSIFICATION,
        effect=lambda m: m["spen@MUTAG"] - m["gin@MUTAG"],
        effect_label="test accuracy of SPEN minus GIN, ten folds, mean of the last ten epochs",
        unit="accuracy",
        at_least=-0.01,
        controls={"majority class": lambda m: m["majority@MUTAG"] - m["gin@MUTAG"]},
    ),
    Claim(
        name="gnn-ak",
        statement="SPEN classifies the molecules of MUTAG at least as accurately as GNN-AK with as many parameters, to "
        "within one point.",
        source="abstract (six of seven benchmarks); no figure of the paper could be read",
        reported={},
        experiment=CLASSIFICATION,
        effect=lambda m: m["spen@MUTAG"] - m["gnn-ak@MUTAG"],
        effect_label="test accuracy of SPEN minus GNN-AK, ten folds, mean of the last ten epochs",
        unit="accuracy",
        at_least=-0.01,
        controls={"majority class": lambda m: m["majority@MUTAG"] - m["gnn-ak@MUTAG"]},
    ),
    Claim(
        name="collection",
        statement="On five TU data sets besides MUTAG, SPEN classifies graphs at least as accurately as GIN with as "
        "many parameters, to within one point on average.",
        source="abstract (six of seven benchmarks); no figure of the paper could be read",
        reported={},
        experiment=COLLECTION,
        effect=lambda m: _over_collection(m, "spen", "gin"),
        effect_label="test accuracy of SPEN minus GIN, mean of five data sets and of the last ten epochs",
        unit="accuracy",
        at_least=-0.01,
        controls={"majority class": lambda m: _over_collection(m, "majority", "gin")},
    ),
    Claim(
        name="collection-gnn-ak",
        statement="On five TU data sets besides MUTAG, SPEN classifies graphs at least as accurately as GNN-AK with as "
        "many parameters, to within one point on average.",
        source="abstract (six of seven benchmarks); no figure of the paper could be read",
        reported={},
        experiment=COLLECTION,
        effect=lambda m: _over_collection(m, "spen", "gnn-ak"),
        effect_label="test accuracy of SPEN minus GNN-AK, mean of five data sets and of the last ten epochs",
        unit="accuracy",
        at_least=-0.01,
        controls={"majority class": lambda m: _over_collection(m, "majority", "gnn-ak")},
    ),
)
