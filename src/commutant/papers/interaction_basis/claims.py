"""Claims: statement, effect, bar and controls."""

from __future__ import annotations

from ...evidence import Claim, Measurement
from .experiments import BLOCKS, COUNTS, DIGITS, INVARIANCE, RANKS

_EITHER = ("small", "full")


def _saved(m: Measurement, kind: str) -> float:
    """Return the share of PCA's interactions that a basis does not need, in the worse of the first two sections."""
    return 1 - max(m[f"{kind}@{place}"] / m[f"pca@{place}"] for place in (0, 1))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="few-edges",
        statement="Before each hidden layer of an MLP, the local interaction basis needs less than half as many "
        "interactions as PCA to keep the accuracy within one point.",
        source="abstract (sparser interactions than PCA, no figures)",
        reported={},
        experiment=DIGITS,
        effect=lambda m: _saved(m, "local"),
        effect_label="share of PCA's interactions that are not needed, the worse of two sections",
        unit="of the interactions",
        at_least=0.5,
        controls={
            "principal axes, turned at random": lambda m: _saved(m, "random"),
            "neurons": lambda m: _saved(m, "neuron"),
        },
    ),
    Claim(
        name="one-step",
        statement="Before each hidden layer of an MLP, derivatives of the next layer alone give a basis that needs at "
        "most a quarter more interactions than derivatives of the output.",
        source="this library; the two papers differ in this point",
        reported={},
        experiment=DIGITS,
        effect=lambda m: 1 - max(m[f"local@{p}"] / m[f"global@{p}"] for p in (0, 1)),
        effect_label="share of the global basis's interactions that are not needed, the worse of two sections",
        unit="of the interactions",
        at_least=-0.25,
        controls={"PCA": lambda m: 1 - max(m[f"pca@{p}"] / m[f"global@{p}"] for p in (0, 1))},
    ),
    Claim(
        name="last-section",
        statement="In the last, linear section of an MLP, the local interaction basis needs fewer interactions than "
        "PCA to keep the accuracy within one point.",
        source="table of released results (unembedding of modular addition)",
        reported={"lib": 634.0, "pca": 663.0},
        labels={"lib": "local interaction basis", "pca": "PCA"},
        reported_effect=1 - 634 / 663,
        experiment=DIGITS,
        effect=lambda m: 1 - m["local@2"] / m["pca@2"],
        effect_label="share of PCA's interactions that are not needed, last section",
        unit="of the interactions",
        at_least=0.0,
        controls={"neurons": lambda m: 1 - m["neuron@2"] / m["pca@2"]},
    ),
    Claim(
        name="blocks",
        statement="Behind a rotation of white inputs, each direction of the local interaction basis belongs to one of "
        "two independent networks to more than 99 %.",
        source="this library; the paper has two blocks without rotation",
        reported={},
        experiment=BLOCKS,
        effect=lambda m: m["local-purity"],
        effect_label="share of a direction in one network, the least pure direction",
        unit="of the squared length",
        at_least=0.99,
        controls={"PCA": lambda m: m["pca-purity"]},
    ),
    Claim(
        name="modularity",
        statement="The graph of interactions of two independent networks is more modular in the local interaction "
        "basis than in that of PCA, by at least 0.2.",
        source="this library; the paper has two blocks without rotation",
        reported={},
        experiment=BLOCKS,
        effect=lambda m: m["local-modularity"] - m["pca-modularity"],
        effect_label="modularity of the graph of interactions, local interaction basis minus PCA",
        unit="of modularity",
        at_least=0.2,
        controls={},
    ),
    Claim(
        name="counts",
        statement="The number of parameters less those that dependent activations, dependent gradients and "
        "synchronized units free is the rank of the Hessian of the behavioral loss, for one hidden layer.",
        source="Using Degeneracy in the Loss Landscape (arXiv 2405.10927), theory",
        reported={},
        experiment=COUNTS,
        effect=lambda m: -m["count-error"],
        effect_label="minus the largest difference of the count from the rank",
        unit="parameters",
        at_least=-0.5,
        controls={"all parameters": lambda m: -m["parameters-error"]},
        basis="identity",
        cases=lambda m: m["cases"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="invariance",
        statement="Strengths and interactions of the local interaction basis stay the same under every invertible "
        "change of the activations between two layers.",
        source="the definition of the basis",
        reported={},
        experiment=INVARIANCE,
        effect=lambda m: -max(m["local"], m["edges"]),
        effect_label="minus the largest change of a strength or interaction over the largest, float64",
        unit="of the largest",
        at_least=-1e-6,
        controls={"PCA": lambda m: -m["pca"]},
        basis="identity",
        cases=lambda m: m["cases"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="ranks",
        statement="If each layer of an MLP reads 3 to 8 coordinates only, those of the local interaction basis keep "
        "the accuracy at least 0.05 above that of principal components, on average.",
        source="this library; SliceGPT cuts by principal components",
        reported={},
        experiment=RANKS,
        effect=lambda m: m["local"] - m["pca"],
        effect_label="accuracy at ranks 3 to 8, local interaction basis minus PCA, mean",
        unit="accuracy",
        at_least=0.05,
        controls={"principal axes, turned at random": lambda m: m["random"] - m["pca"]},
    ),
)
