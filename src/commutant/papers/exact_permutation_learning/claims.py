"""Claims: statement, effect, bar, controls and the figures of the paper."""

from __future__ import annotations

from ...evidence import Claim, Measurement
from .experiments import LEARNING, REGIME
from .measures import SIZES


def _smallest(m: Measurement, end: str) -> float:
    return min(value for name, value in m.items() if name.endswith(end))


def _networks_saved(m: Measurement) -> float:
    """Networks until 99 % of the inputs are right, by the sign rule over by the threshold by weight, for k = 8.

    Between two sizes the share is taken to be linear in the logarithm of the size.
    """

    def networks(rule: str) -> float:
        shares = {n: m[f"k8-{rule}@{n}"] for n in SIZES if f"k8-{rule}@{n}" in m}
        shares[int(m["k8@needed"])] = m[f"k8-{rule}@bound"]
        above = min((n for n, share in shares.items() if share >= 0.99), default=int(m["k8@needed"]))
        below = max((n for n in shares if n < above), default=above)
        if below == above:
            return float(above)
        way = (0.99 - shares[below]) / (shares[above] - shares[below])
        return below * (above / below) ** min(max(way, 0.0), 1.0)

    return networks("sign") / networks("midpoint")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="exact",
        statement="As many networks as the bound asks for, averaged and rounded by sign, answer all nonzero binary "
        "inputs right after training on the basis vectors alone.",
        source="abstract; theorem on ensemble complexity",
        reported={},
        experiment=LEARNING,
        effect=lambda m: _smallest(m, "-sign@bound"),
        effect_label="share of inputs right, the worse of two lengths",
        at_least=0.99,
        controls={
            "one network": lambda m: _smallest(m, "-sign@1"),
            "a linear network, which needs no averaging": lambda m: _smallest(m, "-linear@1"),
        },
    ),
    Claim(
        name="law",
        statement="Outputs of networks of finite width vary over initialisations as the closed form of infinite "
        "width says, within a tenth.",
        source="section on the limit law; formulas derived anew",
        reported={},
        experiment=LEARNING,
        effect=lambda m: -max(abs(value - 1) for name, value in m.items() if name.endswith("@variance")),
        effect_label="minus the largest deviation of the ratio of variances from one",
        at_least=-0.1,
    ),
    Claim(
        name="regime",
        statement="The published experiment illustrates the theorem: networks scaled as in its code need as many "
        "as the kernel of the theorem predicts, within a quarter.",
        source="Figure 1 and its code, which scales the initial weights alone",
        reported={},
        experiment=REGIME,
        effect=lambda m: -abs(m["standard@needed"] / m["ntk@predicted"] - 1),
        effect_label="minus the deviation of networks needed over predicted from one",
        at_least=-0.25,
    ),
    Claim(
        name="last-layer",
        statement="They need as many as if the last layer alone had learned, within a third (ours).",
        source="ours: standard parametrisation at large width is the regime of the NNGP kernel",
        reported={},
        experiment=REGIME,
        effect=lambda m: -abs(m["standard@needed"] / m["nngp@predicted"] - 1),
        effect_label="minus the deviation of networks needed over predicted from one",
        at_least=-0.33,
        controls={"trained as the theorem": lambda m: -abs(m["ntk@needed"] / m["nngp@predicted"] - 1)},
    ),
    Claim(
        name="theorem",
        statement="Networks trained as the theorem has it need as many as its kernel predicts, within a third.",
        source="theorem on ensemble complexity, one input; constants derived anew",
        reported={},
        experiment=REGIME,
        effect=lambda m: -abs(m["ntk@needed"] / m["ntk@predicted"] - 1),
        effect_label="minus the deviation of networks needed over predicted from one",
        at_least=-0.33,
    ),
    Claim(
        name="threshold",
        statement="A threshold that knows the weight of the input needs a tenth of the networks or fewer (ours).",
        source="ours: the margin is a constant instead of O(1/k)",
        reported={},
        experiment=LEARNING,
        effect=_networks_saved,
        effect_label="networks until 99 % are right, by the sign rule over by the threshold",
        at_least=10.0,
    ),
    Claim(
        name="antithetic",
        statement="Five networks that start at zero are enough for the sign rule (ours).",
        source="ours: mirrored hidden units take the random part of the limit away",
        reported={},
        experiment=LEARNING,
        effect=lambda m: _smallest(m, "-antithetic@5"),
        effect_label="share of inputs right, the worse of two lengths",
        at_least=0.99,
        controls={"five plain networks": lambda m: _smallest(m, "-sign@5")},
    ),
)
