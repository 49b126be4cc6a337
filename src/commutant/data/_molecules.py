"""Molecules with the positions of their atoms, bundled with ASE or read from a data folder."""

from __future__ import annotations

import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import one_of
from .._errors import InputError, MissingExtraError, require
from ._sources import Source

_FILES = {"gdb1k": "molecules/gdb1k_3d.npz", "BZR": "tu-text/BZR.zip", "DHFR": "tu-text/DHFR.zip"}
IN_FILES = tuple(_FILES)
_COUNTS = {"g2": 162, "gdb1k": 1000, "BZR": 405, "DHFR": 756}


class Molecule(NamedTuple):
    """Atoms of a molecule with their positions."""

    name: str
    """Name of the molecule within its set."""
    elements: Int[Tensor, " atoms"]
    """Atomic numbers; for BZR and DHFR, the node labels of that collection."""
    positions: Float[Tensor, "atoms 3"]
    """Positions in angstrom, float64."""


def molecules_unavailable(name: str, data_dir: str | None) -> str | None:
    """Return the reason why `load_molecules` would fail, or None.

    Args:
        name: Name of a set of molecules, as for `load_molecules`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    one_of("name", name, _COUNTS)
    if name == "g2":
        try:
            require("ase.collections", "molecules")
        except MissingExtraError as error:
            return str(error)
        return None
    return molecule_source(name).unavailable(data_dir)


def molecule_source(name: str) -> Source:
    """Return the source of a set of molecules in files."""
    return Source(name, (_FILES[name],))


def load_molecules(name: str, data_dir: str | None = None) -> list[Molecule]:
    """Load a set of molecules with their original positions, without centering, rotation or filtering.

    Args:
        name: Name of the set. `"g2"`: the 162 small molecules and atoms of the G2/97 test set in the Atomic Simulation
            Environment, many of them symmetric. `"gdb1k"`: 1000 molecules of the GDB collection with hydrogens.
            `"BZR"` and `"DHFR"`: 405 and 756 ligands.
        data_dir: Data folder with the files of all sets but g2; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: If the name is unknown, the file is missing, or it holds the wrong number of molecules.
        MissingExtraError: If ase is not installed, which `"g2"` needs.

    Example:
        >>> len(load_molecules("g2"))
        162
    """
    missing = molecules_unavailable(name, data_dir)
    if name == "g2":
        g2 = require("ase.collections", "molecules").g2
        found = [Molecule(n, *_tensors(g2[n].numbers, g2[n].positions)) for n in g2.names]
    else:
        folder = molecule_source(name).folder(data_dir)
        if missing or folder is None:
            raise InputError(str(missing))
        path = folder / _FILES[name]
        try:
            found = _gdb(path) if name == "gdb1k" else _tu(path, name)
        except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, IndexError, OSError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
    if len(found) != _COUNTS[name]:
        raise InputError(f"{name} holds {len(found)} molecules, expected {_COUNTS[name]}")
    for molecule in found:
        atoms = len(molecule.elements)
        if not atoms or tuple(molecule.positions.shape) != (atoms, 3) or not bool(molecule.positions.isfinite().all()):
            raise InputError(f"molecule {molecule.name} has {atoms} atoms but not as many finite positions")
    return found


def _tensors(elements: np.ndarray, positions: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.asarray(elements, dtype=np.int64)), torch.from_numpy(np.asarray(positions, np.float64))


def _gdb(path: Path) -> list[Molecule]:
    with np.load(path) as data:
        z, positions, ptr = data["z"], data["pos"], data["ptr"]
    return [Molecule(f"gdb {i + 1}", *_tensors(z[a:b], positions[a:b])) for i, (a, b) in enumerate(pairwise(ptr))]


def _tu(path: Path, name: str) -> list[Molecule]:
    with zipfile.ZipFile(path) as archive:
        read = lambda part: np.genfromtxt(archive.open(f"{name}/{name}_{part}.txt"), delimiter=",")  # noqa: E731
        graph, labels, positions = read("graph_indicator").astype(int), read("node_labels"), read("node_attributes")
    starts = np.flatnonzero(np.diff(graph, prepend=0, append=graph[-1] + 1))
    return [Molecule(f"{name} {graph[a]}", *_tensors(labels[a:b], positions[a:b])) for a, b in pairwise(starts)]
