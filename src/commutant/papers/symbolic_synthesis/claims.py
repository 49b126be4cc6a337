"""Claims: statement, effect, bar and controls; figures of the paper are means of its released logs."""

from __future__ import annotations

from ...evidence import Claim
from .experiments import POPULATION, SEARCH, TIES

_LOGS = "released logs (iterations 3 to 5 of 5)"
_ACCURACY = "accuracy"
_EITHER = ("small", "full")

CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="graph-matters",
        statement="After 16 epochs, which graph conditions a network explains at least 10 % of the variance of its "
        "validation accuracy over seeds, between graphs of equally many nodes and edges.",
        source="abstract",
        reported={},
        experiment=POPULATION,
        effect=lambda m: m["graphs-share@16"],
        effect_label="share of the graph in the variance of validation accuracy, each size apart",
        unit="of the variance",
        at_least=0.1,
        controls={"encoders alone, in groups as if they were graphs": lambda m: m["encoder-share@16"]},
    ),
    Claim(
        name="replication",
        statement="The order of graphs by validation accuracy after 16 epochs is the same on fresh data, with a rank "
        "correlation of at least 0.4.",
        source="this library; the paper has one seed a graph and one data set",
        reported={},
        experiment=POPULATION,
        effect=lambda m: m["replicates"],
        effect_label="rank correlation of graph means (five seeds) between two draws of the data",
        unit="rank correlation",
        at_least=0.4,
        controls={"order by size, small graphs first": lambda m: m["size-predicts"]},
    ),
    Claim(
        name="train-predicts",
        statement="Over graphs, training accuracy after 16 epochs correlates with validation accuracy by at least 0.5.",
        source=_LOGS,
        reported={"graphs-r@16": 0.72, "encoder-r@16": 0.04},
        labels={"graphs-r@16": "over graphs", "encoder-r@16": "over seeds of the encoder"},
        reported_effect=0.72,
        experiment=POPULATION,
        effect=lambda m: m["graphs-r@16"],
        effect_label="correlation of training and validation accuracy over graphs",
        unit="correlation",
        at_least=0.5,
        controls={"seeds of the encoder alone": lambda m: m["encoder-r@16"]},
    ),
    Claim(
        name="under-training",
        statement="The correlation of training and validation accuracy over graphs is at least 0.3 smaller after 40 "
        "epochs than after 16, as training accuracies become equal; it counts as zero where they are.",
        source="this library; not in the paper",
        reported={},
        experiment=POPULATION,
        effect=lambda m: m["graphs-r@16"] - m["graphs-r@40"],
        effect_label="correlation over graphs, 16 epochs minus 40",
        unit="correlation",
        at_least=0.3,
        controls={"training accuracy that is missing after 40 epochs": lambda m: 1 - m["graphs-train@40"]},
    ),
    Claim(
        name="converged-graphs",
        statement="After 40 epochs, which graph conditions a network explains at least 10 % of the variance of its "
        "validation accuracy over seeds, between graphs of equally many nodes and edges.",
        source="this library; the paper trains for 16 epochs",
        reported={},
        experiment=POPULATION,
        effect=lambda m: m["graphs-share@40"],
        effect_label="share of the graph in the variance of validation accuracy, each size apart, 40 epochs",
        unit="of the variance",
        at_least=0.1,
        controls={"encoders alone, in groups as if they were graphs": lambda m: m["encoder-share@40"]},
    ),
    Claim(
        name="behind-encoder",
        statement="After 16 epochs, networks conditioned on graphs have a lower validation accuracy than the encoder "
        "alone.",
        source=f"{_LOGS}; not stated in the paper",
        reported={"graphs-validation@16": 0.63, "encoder-validation@16": 0.671},
        labels={"graphs-validation@16": "graphs", "encoder-validation@16": "encoder alone"},
        reported_effect=0.671 - 0.63,
        experiment=POPULATION,
        effect=lambda m: m["encoder-validation@16"] - m["graphs-validation@16"],
        effect_label="validation accuracy, encoder alone minus mean over graphs, 16 epochs",
        unit=_ACCURACY,
        at_least=0.0,
        controls={"a single node": lambda m: m["encoder-validation@16"] - m["point-validation@16"]},
    ),
    Claim(
        name="converged-head",
        statement="After 40 epochs, networks conditioned on graphs reach a validation accuracy at least 1 point above "
        "that of the encoder alone.",
        source="this library; the paper trains for 16 epochs",
        reported={},
        experiment=POPULATION,
        effect=lambda m: m["graphs-validation@40"] - m["encoder-validation@40"],
        effect_label="validation accuracy, mean over graphs minus encoder alone, 40 epochs",
        unit=_ACCURACY,
        at_least=0.01,
        controls={"a single node": lambda m: m["point-validation@40"] - m["encoder-validation@40"]},
    ),
    Claim(
        name="states",
        statement="A search over the states of the graph machine finds as many graphs as a search over its programs in "
        "the order of their probability with at most a tenth of the primitives.",
        source="released logs (15 s and about a million programs for two graphs)",
        reported={},
        experiment=SEARCH,
        effect=lambda m: m["programs-steps"] / m[f"states-steps@{int(m['programs-graphs'])}"],
        effect_label="primitives run, programs over states, until as many graphs as the programs give",
        unit="times",
        at_least=10.0,
        basis="identity",
        cases=lambda m: 1.0,
        refutable_at=_EITHER,
    ),
    Claim(
        name="planted-symmetry",
        statement="A search over programs that generate permutation groups finds the symmetry of a linear map from 24 "
        "noisy samples in at least 80 % of the trials, over five groups that such programs can generate.",
        source="this library; not in the paper",
        reported={},
        experiment=TIES,
        effect=lambda m: m["found"],
        effect_label="share of planted symmetries that are found exactly",
        unit="of the trials",
        at_least=0.8,
        controls={
            "clusters of ridge weights, number of classes given": lambda m: m["clusters"],
            "least BIC of ridge weights over the same patterns": lambda m: m["bic"],
        },
        basis="share",
        cases=lambda m: m["trials"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="no-symmetry",
        statement="From 24 noisy samples of a linear map without any symmetry, the search reports none in at least 80 "
        "% of the trials.",
        source="this library; not in the paper",
        reported={},
        experiment=TIES,
        effect=lambda m: m["none-found"],
        effect_label="share of maps without symmetry for which none is reported",
        unit="of the trials",
        at_least=0.8,
        basis="share",
        cases=lambda m: m["none-trials"],
        refutable_at=_EITHER,
    ),
    Claim(
        name="ties-help",
        statement="Least squares with the symmetry that the search finds has at most a fifth of the error of ridge "
        "regression on the same 24 samples, over five planted groups.",
        source="this library; not in the paper",
        reported={},
        experiment=TIES,
        effect=lambda m: m["ridge-error"] / m["tied-error"],
        effect_label="squared error of the weights, ridge regression over tied least squares",
        unit="times",
        at_least=5.0,
        controls={"maps without symmetry": lambda m: m["none-ridge-error"] / m["none-tied-error"]},
        refutable_at=_EITHER,
    ),
)
