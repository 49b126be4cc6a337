"""Claims: statement, effect, bar and controls."""

from __future__ import annotations

from ...evidence import Claim
from .experiments import DIGITS, LANGUAGE, LARGE, NORMS, RESIDUAL

_EITHER = ("small", "full")

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="one-run",
        statement="Drawing a sub-network for each step gives, in one run, 32 sub-networks whose mean accuracy is at "
        "least 0.2 above that of the same ones cut out of an ordinary network, at equal passes.",
        source="abstract",
        reported={},
        experiment=DIGITS,
        effect=lambda m: m["sorted-mean"] - m["cut-mean"],
        effect_label="mean accuracy over the menu, sorted minus cut",
        unit="accuracy",
        at_least=0.2,
        controls={"the full network": lambda m: m["sorted-full"] - m["cut-full"]},
    ),
    Claim(
        name="worst-of-32",
        statement="The worst of 32 sub-networks has at least 96 % of the accuracy of an ordinary network of full size.",
        source="abstract (160 sub-networks)",
        reported={"share": 0.96},
        labels={"share": "share of the full network's performance"},
        reported_effect=0.96,
        experiment=DIGITS,
        effect=lambda m: m["sorted-worst"] / m["cut-full"],
        effect_label="accuracy of the worst sub-network over that of an ordinary full network",
        unit="of the accuracy",
        at_least=0.96,
        controls={"cut out of an ordinary network": lambda m: m["cut-worst"] / m["cut-full"]},
    ),
    Claim(
        name="worst-of-160",
        statement="The worst of 160 sub-networks has at least 96 % of the accuracy of an ordinary network of full "
        "size.",
        source="abstract (160 sub-networks)",
        reported={"share": 0.96},
        labels={"share": "share of the full network's performance"},
        reported_effect=0.96,
        experiment=LARGE,
        effect=lambda m: m["sorted-worst"] / m["cut-full"],
        effect_label="accuracy of the worst sub-network over that of an ordinary full network",
        unit="of the accuracy",
        at_least=0.96,
        controls={"cut out of an ordinary network": lambda m: m["cut-worst"] / m["cut-full"]},
    ),
    Claim(
        name="full-size",
        statement="The full network of a sorted one loses at most two points of accuracy against ordinary training at "
        "equal passes.",
        source="this library",
        reported={},
        experiment=DIGITS,
        effect=lambda m: m["sorted-full"] - m["cut-full"],
        effect_label="accuracy of the full network, sorted minus ordinary training",
        unit="accuracy",
        at_least=-0.02,
        controls={},
    ),
    Claim(
        name="alone",
        statement="Sub-networks of a sorted network are on average within two points of networks of their size that "
        "are trained alone, each for as many passes as the whole family.",
        source="tables of the follow-up (Sorted LLaMA: slightly worse at an equal budget)",
        reported={},
        experiment=DIGITS,
        effect=lambda m: m["alone-gap"],
        effect_label="accuracy of eight sub-networks, sorted minus trained alone, mean",
        unit="accuracy",
        at_least=-0.02,
        controls={},
    ),
    Claim(
        name="rivals",
        statement="At equal passes, drawing one sub-network for each step gives a higher mean accuracy over the menu "
        "than the sandwich rule with distillation.",
        source="abstract (better than existing dynamic training)",
        reported={},
        experiment=DIGITS,
        effect=lambda m: m["sorted-mean"] - m["sandwich-mean"],
        effect_label="mean accuracy over the menu, sorted minus sandwich",
        unit="accuracy",
        at_least=0.0,
        controls={},
    ),
    Claim(
        name="all-at-once",
        statement="At equal passes, drawing one sub-network for each step gives a higher mean accuracy over the menu "
        "than the mean loss over all of them.",
        source="the two forms of the objective",
        reported={},
        experiment=DIGITS,
        effect=lambda m: m["sorted-mean"] - m["sum-mean"],
        effect_label="mean accuracy over the menu, drawn minus all at once",
        unit="accuracy",
        at_least=0.0,
        controls={},
    ),
    Claim(
        name="statistics",
        statement="Statistics of batch norms of their own raise the mean accuracy of sub-networks by at least 0.03 "
        "over shared running statistics.",
        source="this library; the handling in the paper is not known to us",
        reported={},
        experiment=NORMS,
        effect=lambda m: m["sorted-own"] - m["sorted-shared"],
        effect_label="mean accuracy over eight widths, own minus shared statistics",
        unit="accuracy",
        at_least=0.03,
        controls={"widest network": lambda m: m["sorted-own@128"] - m["sorted-shared@128"]},
    ),
    Claim(
        name="not-only-statistics",
        statement="With statistics of their own, sub-networks of a sorted network with batch norms are at least 0.1 "
        "more accurate on average than those cut out of an ordinary one with statistics of their own.",
        source="this library",
        reported={},
        experiment=NORMS,
        effect=lambda m: m["sorted-own"] - m["cut-own"],
        effect_label="mean accuracy over eight widths, sorted minus cut, statistics of their own",
        unit="accuracy",
        at_least=0.1,
        controls={"widest network": lambda m: m["sorted-own@128"] - m["cut-own@128"]},
    ),
    Claim(
        name="convolutions",
        statement="In a residual network, one run gives sub-networks whose mean accuracy is at least 0.1 above that of "
        "the same ones cut out of an ordinary network, with statistics of their own.",
        source="tables on CIFAR-10",
        reported={},
        experiment=RESIDUAL,
        effect=lambda m: m["sorted-mean"] - m["cut-mean"],
        effect_label="mean accuracy over the menu, sorted minus cut",
        unit="accuracy",
        at_least=0.1,
        controls={"the full network": lambda m: m["sorted-full"] - m["cut-full"]},
    ),
    Claim(
        name="exits",
        statement="After a third of the layers, a character model that was trained at three depths has a loss at least "
        "0.5 nats below that of one trained at full depth only.",
        source="Sorted LLaMA (arXiv 2309.08968), comparison of intermediate layers",
        reported={},
        experiment=LANGUAGE,
        effect=lambda m: m["cut@2"] - m["sorted@2"] if "cut@2" in m else m["cut@4"] - m["sorted@4"],
        effect_label="loss after a third of the layers, full depth only minus all depths",
        unit="nats",
        at_least=0.5,
        controls={"full depth": lambda m: _deepest(m, "cut") - _deepest(m, "sorted")},
    ),
    Claim(
        name="full-depth",
        statement="Training at three depths costs the full character model at most 0.05 nats at equal steps.",
        source="Sorted LLaMA (arXiv 2309.08968), last layer",
        reported={},
        experiment=LANGUAGE,
        effect=lambda m: _deepest(m, "cut") - _deepest(m, "sorted"),
        effect_label="loss of the full model, full depth only minus all depths",
        unit="nats",
        at_least=-0.05,
        controls={},
    ),
    Claim(
        name="speculative",
        statement="Greedy text of a character model takes at least 1.1 times less time if its first third of layers "
        "drafts it.",
        source="Sorted LLaMA (arXiv 2309.08968), speed on PandaLM",
        reported={"full": 94.07, "speculative": 80.86},
        labels={"full": "milliseconds a token, full model", "speculative": "milliseconds a token, draft of 12 layers"},
        reported_effect=94.07 / 80.86,
        experiment=LANGUAGE,
        effect=lambda m: m["sorted-speed"],
        effect_label="time of plain greedy decoding over that with a draft",
        unit="times",
        at_least=1.1,
        controls={"trained at full depth only": lambda m: m["cut-speed"]},
    ),
    Claim(
        name="exact-text",
        statement="Text that a sub-network drafts and the full model checks is equal to the greedy text of the full "
        "model.",
        source="the method",
        reported={},
        experiment=LANGUAGE,
        effect=lambda m: min(m["sorted-equal"], m["cut-equal"]),
        effect_label="share of equal texts",
        unit="of the texts",
        at_least=1.0,
        controls={},
        basis="identity",
        cases=lambda m: m["cases"],
        refutable_at=_EITHER,
    ),
)


def _deepest(m: dict[str, float], arm: str) -> float:
    """Return the loss at the largest depth."""
    return m[f"{arm}@{max(int(key.partition('@')[2]) for key in m if key.startswith(arm + '@'))}"]
