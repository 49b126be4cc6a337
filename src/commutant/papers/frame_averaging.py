"""Frame Averaging for Invariant and Equivariant Network Design: its claims, at each scale, with controls."""

from __future__ import annotations

import math

from .._errors import MissingExtraError, require
from ..algebra import graph_frame, pca_frame, weighted_frame
from ..data import hard_graphs_unavailable, molecules_unavailable
from ..evidence import Claim, Experiment, Paper
from ..geometry import FrameAverage, GraphAverage, LatentFrameAverage, symmetrize_
from . import _frame_figures as draw_figure
from . import _frame_real_figures as draw_real_figure
from ._frame_measures import measure_exactness, measure_normals, measure_particles, measure_separation
from ._frame_real_measures import measure_families, measure_molecules


def _needs_networkx() -> str | None:
    try:
        require("networkx", "graphs")
    except MissingExtraError as error:
        return str(error)
    return None


NORMALS = Experiment(
    name="normals",
    measure=measure_normals,
    minutes=2.1,
    settings={
        "small": {"train": 800, "test": 200, "points": 96, "epochs": 12},
        "full": {"train": 20_000, "test": 2000, "points": 512, "epochs": 100},
    },
    changes={
        "small": "Surfaces of one or two simple bodies, 96 points on each, 800 of them for 12 epochs of a small "
        "PointNet, against 512 points on 10 000 models of the ABC collection.",
        "full": "20 000 surfaces of one or two simple bodies in place of the ABC collection; the same small PointNet.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 3},
    figure=draw_figure.normals,
    figure_caption="Left: error on upright and on turned test clouds (thin lines are seeds). Right: one turned cloud "
    "with predicted normals, red where more than 30 degrees off.",
)

SEPARATION = Experiment(
    name="separation",
    measure=measure_separation,
    minutes=0.16,
    settings={"small": {"nodes": 7}, "full": {"nodes": 7}},
    changes={
        scale: "All 853 connected graphs on 7 vertices in place of the 11 117 on 8; one random network in place of "
        "100; and relabelled copies of every graph, which the paper does not look at."
        for scale in ("small", "full")
    },
    data={"small": "networkx atlas, 853 graphs", "full": "networkx atlas, 853 graphs"},
    seeds={"small": 5, "full": 5},
    unavailable=lambda _: _needs_networkx(),
    figure=draw_figure.separation,
    figure_caption="What a random network makes of all connected graphs on 7 vertices and of a relabelled copy of each "
    "(mean over seeds).",
)

PARTICLES = Experiment(
    name="particles",
    measure=measure_particles,
    minutes=8.0,
    settings={
        "small": {"train": 1500, "test": 1000, "validation": 300, "warm_up": 1000, "horizon": 1000, "width": 30,
                  "layers": 3, "epochs": 120, "slower": 2, "learning_rate": 3e-3},
        "full": {"train": 3000, "test": 2000, "validation": 2000, "warm_up": 3000, "horizon": 1000, "width": 60,
                 "layers": 4, "epochs": 10_000, "slower": 1, "learning_rate": 1e-3},
    },
    changes={
        "small": "Width 30, three layers and 120 epochs of 1500 systems (60 for the networks that see all frames in "
        "training), against width 60, four layers and 10 000 epochs of 3000; steps 1000 to 2000 in place of 3000 to "
        "4000; messages see charges, distances, potentials, forces, relative positions and velocities of pairs.",
        "full": "A cosine schedule; messages see charges, distances, potentials, forces, relative positions and "
        "velocities of pairs.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 3, "full": 5},
    figure=draw_figure.particles,
    figure_caption="Squared error on test systems as they come, turned, and shifted (thin lines are seeds).",
)  # fmt: skip

EXACTNESS = Experiment(
    name="exactness",
    measure=measure_exactness,
    minutes=0.0047,
    settings={"small": {"pairs": 40}, "full": {"pairs": 1000}},
    changes={
        "small": "Not in the paper: what its frames do at degenerate clouds, and to forces.",
        "full": "Not in the paper: what its frames do at degenerate clouds, and to forces.",
    },
    data={"small": "generated", "full": "generated"},
    seeds={"small": 5, "full": 5},
    figure=draw_figure.exactness,
    figure_caption="Largest change of the average between two clouds near one cube, over many pairs (mean over seeds).",
)


_FAMILIES = ("graph8c", "exp", "sr16", "sr25", "sr26", "sr28", "sr29")
_LIGANDS = ("gdb1k", "BZR", "DHFR")

MOLECULES = Experiment(
    name="molecules",
    measure=measure_molecules,
    minutes=0.5,
    settings={scale: {"sets": ["g2"]} for scale in ("small", "full")},
    changes={
        scale: "Not in the paper: what its frames do to the energy and forces of real molecules, with a random smooth "
        "network."
        for scale in ("small", "full")
    },
    data={scale: "ase, 148 molecules of G2/97" for scale in ("small", "full")},
    seeds={"small": 8, "full": 20},
    unavailable=lambda _: molecules_unavailable("g2", None),
    figure=draw_real_figure.molecules,
    figure_caption="Above: ethanol as it comes and turned, and what a network is shown of either: the same four poses. "
    "Below: what a turn and a jitter of a millionth of an angstrom change, molecules sorted (a line a seed), in units "
    "of what a tenth of an angstrom changes.",
)

LIGANDS = Experiment(
    name="ligands",
    measure=measure_molecules,
    minutes=3.0,
    settings={scale: {"sets": list(_LIGANDS)} for scale in ("small", "full")},
    changes=MOLECULES.changes,
    data={scale: "gdb1k, BZR and DHFR, 2161 molecules" for scale in ("small", "full")},
    seeds={"small": 3, "full": 20},
    unavailable=lambda data_dir: next(filter(None, (molecules_unavailable(n, data_dir) for n in _LIGANDS)), None),
)

FAMILIES = Experiment(
    name="families",
    measure=measure_families,
    minutes=6.0,
    settings={scale: {"families": list(_FAMILIES)} for scale in ("small", "full")},
    changes={
        scale: "One random network in place of 100, one canonical order in place of one drawn from the frame, and "
        "relabelled copies of every graph, which the paper does not look at."
        for scale in ("small", "full")
    },
    data={scale: "GRAPH8c, EXP and all strongly regular graphs of five kinds" for scale in ("small", "full")},
    seeds={"small": 3, "full": 10},
    unavailable=lambda data_dir: next(filter(None, (hard_graphs_unavailable(n, data_dir) for n in _FAMILIES)), None),
    figure=draw_real_figure.families,
    figure_caption="Pairs of graphs with the same output of a random network (mean over seeds; logarithmic).",
)


def _of_families(arm: str):  # type: ignore[no-untyped-def]
    return lambda m: -sum(m[f"{n}@{arm}, merged"] + m[f"{n}@{arm}, copies"] for n in _FAMILIES)


def _mistakes(arm: str):  # type: ignore[no-untyped-def]
    return lambda m: -(m[f"{arm}@merged"] + m[f"{arm}@copies"])


def _digits(arm: str):  # type: ignore[no-untyped-def]
    return lambda m: -math.log10(max(abs(m[f"{arm}@turned"] / m[f"{arm}@upright"] - 1), 1e-7))


PAPER = Paper(
    slug="frame-averaging",
    title="Frame Averaging for Invariant and Equivariant Network Design",
    authors="Omri Puny, Matan Atzmon, Heli Ben-Hamu, Ishan Misra, Aditya Grover, Edward J. Smith, Yaron Lipman",
    year=2022,
    venue="International Conference on Learning Representations",
    link="https://arxiv.org/abs/2110.03336",
    room="geometry",
    idea="The mean of a network over all elements of a group is symmetric and too expensive. Take instead of the group "
    "a few elements that depend on the input and move with it, a frame: the mean over them is as symmetric, and loses "
    "no expressive power. Principal axes with all signs are a frame of point clouds, orders by Laplacian eigenvectors "
    "one of graphs.",
    usage="""import torch
from torch import nn
from commutant.geometry import FrameAverage

net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3))
field = FrameAverage(net, "SE(3)", outputs="vectors")
print(field(torch.randn(8, 100, 3)).shape)
""",
    subjects=(FrameAverage, LatentFrameAverage, GraphAverage, symmetrize_, pca_frame, weighted_frame, graph_frame),
    claims=(
        Claim(
            name="normals",
            statement="Trained on upright clouds alone, a PointNet averaged over frames predicts the normals of turned "
            "clouds with at most 70 % of the error of the PointNet itself.",
            source="Table 1, I/SO(3); the paper's figures from memory, not confirmed",
            reported={"plain@turned": 0.449, "frames@turned": 0.163},
            experiment=NORMALS,
            effect=lambda m: 1 - m["frames@turned"] / m["plain@turned"],
            effect_label="share of the error on turned clouds that frames take away",
            at_least=0.3,
            reported_effect=0.637,
            controls={"turned clouds in training": lambda m: 1 - m["augmented@turned"] / m["plain@turned"]},
        ),
        Claim(
            name="normals-unchanged",
            statement="Averaged over frames, it is as good on turned clouds as on upright ones, to three digits.",
            source="Table 1, I/I and I/SO(3)",
            reported={"frames@upright": 0.158, "frames@turned": 0.163},
            experiment=NORMALS,
            effect=_digits("frames"),
            effect_label="digits in which the two errors agree",
            at_least=3.0,
            basis="identity",
            cases=lambda m: m["clouds"],
            controls={"PointNet": _digits("plain"), "turned clouds in training": _digits("augmented")},
        ),
        Claim(
            name="separation",
            statement="Averaged over the spectral frame, random networks tell all connected graphs on 7 vertices apart "
            "from each other, and none from its relabelled copy.",
            source="Table 2 (pairs on 8 vertices), without the copies",
            reported={"spectral-mlp@merged": 0.0, "spectral-gin@merged": 0.0},
            experiment=SEPARATION,
            effect=lambda m: min(_mistakes("spectral-mlp")(m), _mistakes("spectral-gin")(m)),
            effect_label="minus the number of mistakes, the worse of MLP and numbered GIN",
            at_least=-0.5,
            basis="identity",
            cases=lambda m: m["graphs"],
            controls={
                "GIN": _mistakes("gin"),
                "GIN with numbered nodes": _mistakes("numbered-gin"),
                "MLP, any order": _mistakes("random-order-mlp"),
                "MLP, one order of the frame": _mistakes("one-frame-mlp"),
            },
        ),
        Claim(
            name="one-order",
            statement="One order of every graph, the canonical one, does the same with one evaluation each.",
            source="this library; not in the paper",
            reported={},
            experiment=SEPARATION,
            effect=lambda m: min(_mistakes("refined-mlp")(m), _mistakes("refined-gin")(m)),
            effect_label="minus the number of mistakes, the worse of MLP and numbered GIN",
            at_least=-0.5,
            basis="identity",
            cases=lambda m: m["graphs"],
            controls={"one order of the spectral frame": _mistakes("one-frame-mlp")},
        ),
        Claim(
            name="particles",
            statement="A message-passing network in frames of E(3), one drawn in training and all in evaluation, "
            "predicts charged particles with at most 80 % of the error of EGNN after as many epochs.",
            source="Table 3, FA-GNN and EGNN; the paper's figures from memory, not confirmed",
            reported={"plain@error": 0.0107, "egnn@error": 0.0071, "latent-frames@error": 0.0057},
            experiment=PARTICLES,
            effect=lambda m: 1 - m["sampled@error"] / m["egnn@error"],
            effect_label="share of the error of EGNN that frames take away",
            at_least=0.2,
            reported_effect=0.197,
            controls={
                "the same network without frames": lambda m: 1 - m["plain@error"] / m["egnn@error"],
                "systems turned in training": lambda m: 1 - m["augmented@error"] / m["egnn@error"],
                "systems centred": lambda m: 1 - m["centred@error"] / m["egnn@error"],
                "EGNN with the same features of pairs": lambda m: 1 - m["egnn-features@error"] / m["egnn@error"],
            },
        ),
        Claim(
            name="particles-symmetry",
            statement="In frames of E(3), one drawn in training and all in evaluation, a message-passing network "
            "predicts charged particles with at most three quarters of the error of the same network without frames.",
            source="Table 3, FA-GNN and GNN; the paper's figures from memory, not confirmed",
            reported={"plain@error": 0.0107, "latent-frames@error": 0.0057},
            experiment=PARTICLES,
            effect=lambda m: 1 - m["sampled@error"] / m["plain@error"],
            effect_label="share of the error that frames take away",
            at_least=0.25,
            reported_effect=0.467,
            controls={
                "systems turned in training": lambda m: 1 - m["augmented@error"] / m["plain@error"],
                "systems centred": lambda m: 1 - m["centred@error"] / m["plain@error"],
            },
        ),
        Claim(
            name="sampled-frames",
            statement="With one frame drawn in training and all frames in evaluation, a network predicts charged "
            "particles with at most 80 % of the error of the same network that sees all frames in training for half "
            "the epochs, in less time.",
            source="this library; the paper takes all frames in training",
            reported={},
            experiment=PARTICLES,
            effect=lambda m: 1 - m["sampled@error"] / m["frames@error"],
            effect_label="share of the error that sampling takes away",
            at_least=0.2,
        ),
        Claim(
            name="layer-frames",
            statement="On charged particles, frames in every layer of a message-passing network leave at most 95 % of "
            "the error of one frame around the whole network, all frames being taken in training.",
            source="Section 4.3, which uses them without a comparison",
            reported={},
            experiment=PARTICLES,
            effect=lambda m: 1 - m["latent-frames@error"] / m["frames@error"],
            effect_label="share of the error that they take away",
            at_least=0.05,
        ),
        Claim(
            name="continuity",
            statement="A thousandth from a cube, an average over principal axes jumps between two clouds; with axes "
            "that slide into tuples of points where they merge the jump is 30 times smaller.",
            source="this library, after Dym, Lawrence and Siegel, 2024",
            reported={},
            experiment=EXACTNESS,
            effect=lambda m: math.log10(m["axes@jump-3"] / m["blended@jump-3"]),
            effect_label="digits by which the largest jump shrinks, a thousandth from the cube",
            at_least=1.5,
        ),
        Claim(
            name="torque",
            statement="Forces are free of torque where gradients flow through the frame, and are not where it is "
            "detached, as in the paper's code.",
            source="this library; the paper's code detaches",
            reported={},
            experiment=EXACTNESS,
            effect=lambda m: math.log10(m["detached@torque"] / m["through@torque"]),
            effect_label="digits by which the torque of a force shrinks",
            at_least=8.0,
            basis="identity",
            cases=lambda m: m["clouds"],
        ),
        Claim(
            name="molecules",
            statement="With frames that slide, turning a real molecule and jittering its atoms by a millionth of an "
            "angstrom changes its energy by less than a thousandth of what a tenth of an angstrom does, symmetric "
            "molecules included.",
            source="beside the paper, whose frames assume distinct eigenvalues",
            reported={},
            experiment=MOLECULES,
            effect=lambda m: m["sliding@steady"],
            effect_label="share of molecules whose energy stays",
            at_least=0.995,
            basis="share",
            cases=lambda m: m["molecules"],
            controls={"eigenvectors with all signs, as in the paper": lambda m: m["eigenvectors@steady"]},
        ),
        Claim(
            name="forces",
            statement="With sliding frames, the force on a real molecule is the slope of its energy on both sides of a "
            "displacement to 1 %, and turns with the molecule to 0.1 %, symmetric molecules included.",
            source="beside the paper, whose code detaches the frame",
            reported={},
            experiment=MOLECULES,
            effect=lambda m: m["sliding@right forces"],
            effect_label="share of molecules with right forces",
            at_least=0.995,
            basis="share",
            cases=lambda m: m["molecules"],
            controls={
                "eigenvectors with all signs": lambda m: m["eigenvectors@right forces"],
                "the same, detached as in the paper's code": lambda m: m["detached@right forces"],
            },
        ),
        Claim(
            name="ligands",
            statement="With sliding frames, energies of 1000 small organic molecules and 1161 ligands stay under a "
            "turn, and forces are the slopes of the energy and turn with the molecule.",
            source="beside the paper, whose frames assume distinct eigenvalues",
            reported={},
            experiment=LIGANDS,
            effect=lambda m: min(m["sliding@steady"], m["sliding@right forces"]),
            effect_label="share of molecules whose energy stays, or whose forces are right, the smaller",
            at_least=0.999,
            basis="share",
            cases=lambda m: m["molecules"],
            controls={
                "eigenvectors with all signs": lambda m: min(m["eigenvectors@steady"], m["eigenvectors@right forces"])
            },
        ),
        Claim(
            name="families",
            statement="In its canonical order, a random network tells apart all graphs of GRAPH8c, the pairs of EXP "
            "and strongly regular graphs, and no graph from its relabelled copy.",
            source="Table 2 (GRAPH8c and EXP: no pair left by FA-MLP, 386 and 600 by GIN)",
            reported={"GIN on GRAPH8c, pairs left": 386.0, "GIN on EXP, pairs left": 600.0},
            experiment=FAMILIES,
            effect=_of_families("canonical order"),
            effect_label="minus the number of mistakes",
            at_least=-0.5,
            basis="identity",
            cases=lambda m: sum(m[f"{n}@graphs"] for n in _FAMILIES),
            controls={"GIN": _of_families("GIN")},
        ),
    ),
)
