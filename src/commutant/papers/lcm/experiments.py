"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ...data import graphs_unavailable
from ...evidence import Experiment
from . import figures
from .measures import (
    measure_batch_dependence,
    measure_cost,
    measure_digits,
    measure_graphs,
    measure_second_minimum,
    needs_pyg,
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
        "small": "Uses 5-bit integers, width 64 and 2000 steps of fresh sets, where the paper uses 8 bits, width 128 "
        "and 2 million steps over 65 536 sets. Each set has its own range, so that the answer is not nearly always 0.",
        "full": "Trains on fresh sets instead of 65 536 fixed ones, in batches of 256 at learning rate 5e-4 instead of "
        "32 at 1e-4, for as many samples as in the paper; evaluates the last weights instead of the best by "
        "validation.",
    },
    data={"small": "generated sets of integers", "full": "generated sets of integers"},
    seeds={"small": 4, "full": 3},
    figure=figures.second_minimum,
    figure_caption="Share of exact answers against the size of the set (mean over seeds, band of one standard "
    "deviation). Training sets have at most 16 elements. Circles are the paper's figures for sets of 32 and 200.",
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
        "small": "Times one forward and backward pass of the aggregation alone, of width 64, on one CPU thread; the "
        "paper times an epoch on a GPU.",
        "full": "Times one forward and backward pass of the aggregation alone; the paper times an epoch.",
    },
    data={"small": "random vectors", "full": "random vectors"},
    seeds={"small": 5, "full": 5},
    figure=figures.cost,
    figure_caption="Time of a forward and backward pass over 32 sets against their size (median over seeds).",
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
        "small": "Classifies 8 x 8 digits as sets of about 33 lit pixels, without message passing; the paper "
        "classifies MNIST superpixel graphs in the PNA architecture.",
        "full": "Uses the same data at width 128 and ten times the steps: scikit-learn's digits, not MNIST.",
    },
    data={
        "small": "scikit-learn digits, 1797 images as point sets",
        "full": "scikit-learn digits, 1797 images as point sets",
    },
    seeds={"small": 3, "full": 5},
    figure=figures.digits,
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
        "small": "Trains three layers of width 32 for 300 steps on MUTAG; the paper's real data are ZINC, MNIST, "
        "CIFAR10 and MolHIV.",
        "full": "Trains on MUTAG and PROTEINS in ten folds; the paper's real data are ZINC, MNIST, CIFAR10 and MolHIV.",
    },
    data={"small": "MUTAG, 188 molecules, ten folds", "full": "MUTAG and PROTEINS, ten folds"},
    seeds={"small": 10, "full": 10},
    unavailable=lambda data_dir: needs_pyg(data_dir) or graphs_unavailable("MUTAG", data_dir),
    figure=figures.graphs,
    figure_caption="Test accuracy by aggregation; each dot is a fold, the bar its mean.",
)


BATCH = Experiment(
    name="batch-dependence",
    measure=measure_batch_dependence,
    minutes=0.01,
    settings={"small": {"channels": 8}, "full": {"channels": 64}},
    changes={
        "small": "Not in the paper: a property of the published implementations, measured at random initialization.",
        "full": "Not in the paper: a property of the published implementations, measured at random initialization.",
    },
    data={"small": "random vectors", "full": "random vectors"},
    seeds={"small": 10, "full": 10},
    unavailable=needs_pyg,
    figure=figures.batch_dependence,
    figure_caption="Largest change of a set's result when other sets join its batch, relative to the spread of "
    "results.",
)
