"""Experiments: settings at each scale, data, and differences from the paper."""

from __future__ import annotations

from ..._errors import MissingExtraError, require
from ...data import hard_graphs_unavailable, molecules_unavailable
from ...evidence import Experiment
from . import figures, molecule_figures
from .measures import measure_exactness, measure_normals, measure_particles, measure_separation
from .molecules import measure_families, measure_molecules


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
        "small": "Trains a small PointNet for 12 epochs on 96 points of each of 800 surfaces of one or two simple "
        "bodies; the paper uses 512 points of 10 000 models of the ABC collection.",
        "full": "Trains the same small PointNet on 20 000 surfaces of one or two simple bodies instead of the ABC "
        "collection.",
    },
    data={"small": "generated surfaces", "full": "generated surfaces"},
    seeds={"small": 3, "full": 3},
    figure=figures.normals,
    figure_caption="Left: error on upright and on rotated test clouds (thin lines are seeds). Right: one rotated cloud "
    "with predicted normals, red where they are more than 30 degrees off.",
)


SEPARATION = Experiment(
    name="separation",
    measure=measure_separation,
    minutes=0.16,
    settings={"small": {"nodes": 7}, "full": {"nodes": 7}},
    changes={
        scale: "Compares all 853 connected graphs on 7 vertices instead of the 11 117 on 8, with one random network "
        "instead of 100, and also relabeled copies of every graph, which the paper does not test."
        for scale in ("small", "full")
    },
    data={"small": "networkx atlas, 853 graphs", "full": "networkx atlas, 853 graphs"},
    seeds={"small": 5, "full": 5},
    unavailable=lambda _: _needs_networkx(),
    figure=figures.separation,
    figure_caption="Mistakes of a random network on all connected graphs on 7 vertices and on a relabeled copy of each "
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
        "small": "Trains three layers of width 30 for 120 epochs of 1500 systems (60 for networks that see all frames "
        "in training); the paper trains four layers of width 60 for 10 000 epochs of 3000. Predicts step 2000 from "
        "step 1000 instead of 4000 from 3000. Messages also see potentials, forces and relative positions and "
        "velocities.",
        "full": "Uses a cosine schedule; messages also see potentials, forces and relative positions and velocities of "
        "pairs.",
    },
    data={"small": "simulated charged particles", "full": "simulated charged particles"},
    seeds={"small": 3, "full": 5},
    figure=figures.particles,
    figure_caption="Squared error on test systems as generated, rotated, and shifted (thin lines are seeds).",
)  # fmt: skip


EXACTNESS = Experiment(
    name="exactness",
    measure=measure_exactness,
    minutes=0.0047,
    settings={"small": {"pairs": 40}, "full": {"pairs": 1000}},
    changes={
        "small": "Not in the paper: tests its frames near degenerate clouds, and their effect on forces.",
        "full": "Not in the paper: tests its frames near degenerate clouds, and their effect on forces.",
    },
    data={"small": "random point clouds", "full": "random point clouds"},
    seeds={"small": 5, "full": 5},
    figure=figures.exactness,
    figure_caption="Largest change of the average between two clouds near the same cube, over many pairs (mean over "
    "seeds).",
)


_FAMILIES = ("graph8c", "exp", "sr16", "sr25", "sr26", "sr28", "sr29")


_LIGANDS = ("gdb1k", "BZR", "DHFR")


MOLECULES = Experiment(
    name="molecules",
    measure=measure_molecules,
    minutes=0.5,
    settings={scale: {"sets": ["g2"]} for scale in ("small", "full")},
    changes={
        scale: "Not in the paper: tests the effect of its frames on energies and forces of real molecules, with a "
        "random smooth network."
        for scale in ("small", "full")
    },
    data={scale: "ase, 148 molecules of G2/97" for scale in ("small", "full")},
    seeds={"small": 8, "full": 20},
    unavailable=lambda _: molecules_unavailable("g2", None),
    figure=molecule_figures.molecules,
    figure_caption="Above: ethanol as given and rotated, and the four poses of its frame that a network sees, the same "
    "for both. Below: change of the energy under a rotation and a jitter of a millionth of an angstrom, relative to "
    "the change under a tenth of an angstrom, molecules sorted (one line per seed).",
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
        scale: "Uses one random network instead of 100 and one canonical order instead of one drawn from the frame, "
        "and also tests relabeled copies of every graph, which the paper does not."
        for scale in ("small", "full")
    },
    data={scale: "GRAPH8c, EXP and all strongly regular graphs of five kinds" for scale in ("small", "full")},
    seeds={"small": 3, "full": 10},
    unavailable=lambda data_dir: next(filter(None, (hard_graphs_unavailable(n, data_dir) for n in _FAMILIES)), None),
    figure=molecule_figures.families,
    figure_caption="Pairs of graphs with the same output of a random network (mean over seeds; logarithmic).",
)
