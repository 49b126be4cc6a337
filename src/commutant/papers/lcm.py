"""Learnable Commutative Monoids for Graph Neural Networks: its claims, at each scale, with controls."""

from __future__ import annotations

import statistics

from ..data import graphs_unavailable
from ..evidence import Claim, Experiment, Paper
from ..sets import BinaryGRU, Conjugated, GRUFoldAggregation, LCMAggregation, MonoidAggregation
from . import _lcm_figures as draw_figure
from ._lcm_measures import (
    measure_batch_dependence,
    measure_cost,
    measure_digits,
    measure_graphs,
    measure_second_minimum,
    needs_pyg,
    step_height,
)

SECOND_MINIMUM = Experiment(
    name="second-minimum",
    measure=measure_second_minimum,
    minutes=3.3,
    settings={
        "small": {
            "bits": 5,
            "spread_low": 28,
            "channels": 64,
            "steps": 2000,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "tests": 1024,
        },
        "full": {
            "bits": 8,
            "spread_low": 0,
            "channels": 128,
            "steps": 256_000,
            "batch_size": 256,
            "learning_rate": 5e-4,
            "tests": 1024,
        },
    },
    changes={
        "small": "5-bit integers, each set from its own range (so that the answer is not nearly always 0), width 64 "
        "and 2000 steps of fresh sets, against 8 bits, width 128 and 2 million steps over 65 536 sets in the paper.",
        "full": "Fresh sets in place of 65 536 fixed ones, batches of 256 at learning rate 5e-4 for as many samples as "
        "the paper's 1000 epochs of batch 32 at 1e-4; the last weights in place of the best by validation.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 4, "full": 3},
    figure=draw_figure.second_minimum,
    figure_caption="Share of exact answers against the size of the set (mean over seeds, band of one standard "
    "deviation). Training sets have at most 16 elements. Circles are the paper's figures at 32 and 200.",
)

COST = Experiment(
    name="cost",
    measure=measure_cost,
    minutes=0.061,
    settings={
        "small": {"sizes": [2, 8, 16, 32, 64, 128, 200], "sets": 32, "channels": 64, "repeats": 9},
        "full": {"sizes": [2, 8, 16, 32, 64, 128, 200], "sets": 32, "channels": 128, "repeats": 30},
    },
    changes={
        "small": "One forward and backward pass of the aggregation alone, width 64, on one CPU thread; the paper times "
        "an epoch on a GPU.",
        "full": "One forward and backward pass of the aggregation alone; the paper times an epoch.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 5},
    figure=draw_figure.cost,
    figure_caption="Milliseconds of forward and backward over 32 sets against their size (median over seeds).",
)

DIGITS = Experiment(
    name="digits",
    measure=measure_digits,
    minutes=0.99,
    settings={
        "small": {"train": 1200, "channels": 64, "steps": 800, "batch_size": 64, "learning_rate": 2e-3},
        "full": {"train": 1200, "channels": 128, "steps": 8000, "batch_size": 64, "learning_rate": 1e-3},
    },
    changes={
        "small": "8 x 8 digits as sets of about 33 lit pixels and no message passing, against MNIST superpixel graphs "
        "under the PNA architecture.",
        "full": "The same data at width 128 and ten times the steps; it remains scikit-learn's digits, not MNIST.",
    },
    data={
        "small": "scikit-learn digits, 1797 images as point sets",
        "full": "scikit-learn digits, 1797 images as point sets",
    },
    seeds={"small": 3, "full": 5},
    figure=draw_figure.digits,
    figure_caption="Test accuracy by aggregation; each dot is a seed, the bar its mean.",
)

GRAPHS = Experiment(
    name="graphs",
    measure=measure_graphs,
    minutes=0.35,
    settings={
        "small": {"names": ["MUTAG"], "channels": 32, "steps": 300, "batch_size": 32, "learning_rate": 5e-3},
        "full": {
            "names": ["MUTAG", "PROTEINS"],
            "channels": 64,
            "steps": 5000,
            "batch_size": 32,
            "learning_rate": 1e-3,
        },
    },
    changes={
        "small": "MUTAG with three layers of width 32 and 300 steps; the paper's real data are ZINC, MNIST, CIFAR10 "
        "and MolHIV.",
        "full": "MUTAG and PROTEINS in ten folds; the paper's real data are ZINC, MNIST, CIFAR10 and MolHIV.",
    },
    data={"small": "MUTAG, 188 molecules, ten folds", "full": "MUTAG and PROTEINS, ten folds"},
    seeds={"small": 10, "full": 10},
    unavailable=lambda data_dir: needs_pyg(data_dir) or graphs_unavailable("MUTAG", data_dir),
    figure=draw_figure.graphs,
    figure_caption="Test accuracy by aggregation; each dot is a fold, the bar its mean.",
)

BATCH = Experiment(
    name="batch-dependence",
    measure=measure_batch_dependence,
    minutes=0.01,
    settings={"small": {"channels": 8}, "full": {"channels": 64}},
    changes={
        "small": "Not in the paper: a property of the published implementations, measured at random initialisation.",
        "full": "Not in the paper: a property of the published implementations, measured at random initialisation.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 10, "full": 10},
    unavailable=needs_pyg,
    figure=draw_figure.batch_dependence,
    figure_caption="Largest change of a set's result when other sets join its batch, relative to how much they vary.",
)

PAPER = Paper(
    slug="lcm",
    title="Learnable Commutative Monoids for Graph Neural Networks",
    authors="Euan Ong, Petar Veličković",
    year=2022,
    venue="Learning on Graphs Conference",
    link="https://arxiv.org/abs/2212.08541",
    room="sets",
    idea="A permutation-invariant aggregation is a commutative monoid. A network with a fixed one (sum, max, mean) has "
    "to learn a map from it onto the monoid that the task needs, and such maps often fail outside the training range. "
    "So learn the operator itself, symmetrised to be commutative and trained to be nearly associative, and reduce by a "
    "balanced tree in logarithmic depth.",
    usage="""import torch
from torch_geometric.nn import SAGEConv
from commutant.sets import LCMAggregation, aux_loss

conv = SAGEConv(16, 32, aggr=LCMAggregation(16, 16))
x, edge_index = torch.randn(10, 16), torch.randint(0, 10, (2, 40))
out = conv(x, edge_index)                 # any order of edges, no padding
loss = out.square().mean() + aux_loss(conv)""",
    subjects=(BinaryGRU, LCMAggregation, MonoidAggregation, GRUFoldAggregation, Conjugated),
    claims=(
        Claim(
            name="second-minimum",
            statement="On sets twice as large as any seen in training, LCM finds the second minimum far more often "
            "than an aggregation by sum or max.",
            source="Section 3.1, Table 2",
            reported={
                "binary-gru@32": 0.992,
                "sum@32": 0.261,
                "max@32": 0.723,
                "gru@32": 0.998,
                "binary-gru@200": 0.443,
                "sum@200": 0.045,
                "max@200": 0.069,
                "gru@200": 0.912,
            },
            experiment=SECOND_MINIMUM,
            effect=lambda m: m["binary-gru@32"] - max(m["sum@32"], m["max@32"]),
            effect_label="accuracy of Binary-GRU minus the better of sum and max, n = 32",
            at_least=0.2,
            reported_effect=0.269,
            controls={
                "sum with as many parameters": lambda m: m["sum-wide@32"] - max(m["sum@32"], m["max@32"]),
                "best constant answer": lambda m: m["constant@32"] - max(m["sum@32"], m["max@32"]),
            },
        ),
        Claim(
            name="beyond-pna",
            statement="On sets six times as large as any seen in training, LCM stays ahead of PNA, which combines four "
            "fixed aggregations.",
            source="Section 3.1, Table 2",
            reported={"binary-gru@200": 0.443, "pna@200": 0.110, "binary-gru@32": 0.992, "pna@32": 0.794},
            experiment=SECOND_MINIMUM,
            effect=lambda m: m["binary-gru@100"] - m["pna@100"],
            effect_label="accuracy of Binary-GRU minus PNA, n = 100 (the paper's figure: n = 200)",
            at_least=0.12,
            reported_effect=0.333,
            controls={"best constant answer": lambda m: m["constant@100"] - m["pna@100"]},
        ),
        Claim(
            name="associativity-loss",
            statement="The associativity loss makes LCM more accurate on sets far larger than in training.",
            source="Section 3.1, Table 2",
            reported={"binary-gru-assoc@200": 0.822, "binary-gru@200": 0.443},
            experiment=SECOND_MINIMUM,
            effect=lambda m: m["binary-gru-assoc@200"] - m["binary-gru@200"],
            effect_label="accuracy with the loss (weight 1) minus without, n = 200",
            at_least=0.1,
            reported_effect=0.379,
            controls={},
        ),
        Claim(
            name="power-of-two-steps",
            statement="Without the associativity loss, accuracy drops in steps where the size passes a power of two "
            "and the tree grows by a level.",
            source="Section 3.1, Figure 4",
            reported={},
            experiment=SECOND_MINIMUM,
            effect=lambda m: step_height(m, "binary-gru"),
            effect_label="accuracy lost from n to 9/8 n at powers of two, minus that from 3/2 n to 13/8 n",
            at_least=0.01,
            controls={"GRU fold, which has no tree": lambda m: step_height(m, "gru")},
        ),
        Claim(
            name="smoother-steps",
            statement="The associativity loss smooths the steps at powers of two.",
            source="Section 3.1, Figure 4",
            reported={},
            experiment=SECOND_MINIMUM,
            effect=lambda m: step_height(m, "binary-gru") - step_height(m, "binary-gru-assoc"),
            effect_label="step height without the loss minus with it",
            at_least=0.01,
            controls={},
        ),
        Claim(
            name="random-bracketing",
            statement="Training with a random bracketing in every step makes LCM more accurate on sets far larger than "
            "in training, without the associativity loss.",
            source="this library; not in the paper",
            reported={},
            experiment=SECOND_MINIMUM,
            effect=lambda m: m["binary-gru-random@200"] - m["binary-gru@200"],
            effect_label="accuracy with random bracketing minus balanced trees only, n = 200",
            at_least=0.05,
            controls={"in distribution": lambda m: m["binary-gru-random@train"] - m["binary-gru@train"]},
        ),
        Claim(
            name="logarithmic-depth",
            statement="On large sets LCM takes a fraction of the time of a recurrent aggregation, because its depth is "
            "logarithmic.",
            source="Section 3.1.2",
            reported={"gru@200": 397.2, "binary-gru@200": 79.4},
            experiment=COST,
            effect=lambda m: m["gru@200"] / m["binary-gru@200"],
            effect_label="time of the GRU fold over time of LCM, n = 200",
            at_least=1.5,
            reported_effect=397.2 / 79.4,
            controls={"sets of two, where both have the same depth": lambda m: m["gru@2"] / m["binary-gru@2"]},
        ),
        Claim(
            name="real-input",
            statement="On real input LCM classifies better than an aggregation by sum.",
            source="Section 3.3, Figure 2 (MNIST superpixels)",
            reported={"binary-gru": 0.9779, "sum": 0.9672, "max": 0.9737, "gru": 0.9815},
            experiment=DIGITS,
            effect=lambda m: m["binary-gru"] - m["sum"],
            effect_label="test accuracy of LCM minus sum",
            at_least=0.005,
            reported_effect=0.0107,
            controls={"sum with as many parameters": lambda m: m["sum-wide"] - m["sum"]},
        ),
        Claim(
            name="graph-classification",
            statement="As the aggregation of a message-passing network, LCM is no worse than sum on real graphs.",
            source="Section 3.3, Figure 2",
            reported={},
            experiment=GRAPHS,
            effect=lambda m: statistics.fmean(
                m[k] - m[k.replace("binary-gru-random", "sum")] for k in m if "binary" in k
            ),
            effect_label="test accuracy of LCM minus sum, mean over data sets",
            at_least=-0.03,
            controls={},
        ),
        Claim(
            name="batch-dependence",
            statement="The recurrent aggregations of PyTorch Geometric (GRU, LSTM, LCM) give a set another result when "
            "larger sets are in its batch; those of this library do not.",
            source="this library; not in the paper",
            reported={},
            experiment=BATCH,
            effect=lambda m: min(m["pyg-gru"], m["pyg-lstm"], m["pyg-lcm"]),
            effect_label="smallest of the three residuals, relative to the output's variation",
            at_least=0.1,
            controls={"this library's LCM and GRU fold": lambda m: max(m["lcm"], m["gru"])},
        ),
    ),
)
