"""Molecules with the positions of their atoms: what ASE carries, and files of a data folder."""

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

from .._errors import InputError, MissingExtraError, require
from ._graphs import data_folder

_FILES = {"gdb1k": "molecules/gdb1k_3d.npz", "BZR": "tu-text/BZR.zip", "DHFR": "tu-text/DHFR.zip"}
_COUNTS = {"g2": 162, "gdb1k": 1000, "BZR": 405, "DHFR": 756}


class Molecule(NamedTuple):
    """Atoms and where they are."""

    name: str
    elements: Int[Tensor, " atoms"]
    """Atomic numbers, or for BZR and DHFR the labels of that collection."""
    positions: Float[Tensor, "atoms 3"]
    """In angstrom, float64."""


def molecules_unavailable(name: str, data_dir: str | None) -> str | None:
    """Why `load_molecules` would fail, or None."""
    if name not in _COUNTS:
        raise InputError(f"unknown molecules {name!r}; expected one of {', '.join(_COUNTS)}")
    if name == "g2":
        try:
            require("ase.collections", "molecules")
        except MissingExtraError as error:
            return str(error)
        return None
    folder = data_folder(data_dir)
    if folder is not None and (folder / _FILES[name]).is_file():
        return None
    return f"{name} is read from a data folder (--data-dir, {_FILES[name]}), and there is none"


def load_molecules(name: str, data_dir: str | None = None) -> list[Molecule]:
    """Molecules in space, as they are given: nothing is centred, turned or left out.

    Args:
        name: g2, the 162 small molecules and atoms of the G2/97 test set in the Atomic Simulation Environment (many of
            them symmetric); gdb1k, 1000 of the GDB collection with hydrogens; BZR and DHFR, 405 and 756 ligands.
        data_dir: holds the files of all but g2.

    Raises:
        InputError: for an unknown name, a missing file, and one with other numbers of molecules.
        MissingExtraError: for g2 without ase.

    Example:
        >>> len(load_molecules("g2"))
        162
    """
    missing = molecules_unavailable(name, data_dir)
    if name == "g2":
        g2 = require("ase.collections", "molecules").g2
        found = [Molecule(n, *_tensors(g2[n].numbers, g2[n].positions)) for n in g2.names]
    else:
        folder = data_folder(data_dir)
        if missing or folder is None:
            raise InputError(missing or "no data folder")
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
            raise InputError(f"molecule {molecule.name} has {atoms} elements and not as many finite positions")
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
