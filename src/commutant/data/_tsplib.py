"""Instances of the traveling salesman problem in the format of TSPLIB (Reinelt 1991)."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._sources import Source

_FILES = ("tsplib/tsplib.zip", "tsplib/optima.csv")
_COUNT = 58
_PI = 3.141592  # that of TSPLIB, on which its optima of geographical instances rely


@dataclass(frozen=True)
class TSPInstance:
    """Symmetric traveling salesman problem with whole-number distances.

    Attributes:
        name: Name of the instance.
        distance: Distances, rounded as TSPLIB rounds them, `(n, n)`.
        points: Coordinates, `(n, 2)`, or None where only distances are given.
        optimum: Length of the shortest tour, or None where it is not known.
        tour: A shortest tour, `(n,)`, or None.
    """

    name: str
    distance: Int[Tensor, "n n"]
    points: Float[Tensor, "n 2"] | None
    optimum: int | None = None
    tour: Int[Tensor, " n"] | None = None

    def length(self, tour: Int[Tensor, " n"]) -> int:
        """Return the length of a closed tour.

        Args:
            tour: Permutation of the nodes, `(n,)`.
        """
        if tour.dim() != 1 or sorted(tour.tolist()) != list(range(len(self.distance))):
            raise InputError(
                f"a tour must be a permutation of 0 .. {len(self.distance) - 1}, got {tour.tolist()!r:.60}"
            )
        return int(self.distance[tour, tour.roll(-1)].sum())


def tsplib_source() -> Source:
    """Return the source of the instances."""
    return Source("TSPLIB", _FILES)


def load_tsplib(data_dir: str | None = None, most: int | None = None) -> list[TSPInstance]:
    """Load instances of TSPLIB from a data folder, the smallest first.

    Every tour file is checked against the published optimum.

    Args:
        data_dir: Data folder with `tsplib/tsplib.zip`, which holds `.tsp` and `.opt.tour` files, and
            `tsplib/optima.csv` with columns `name` and `optimum`; by default `$COMMUTANT_DATA`.
        most: Largest number of nodes; all by default.

    Raises:
        InputError: For a missing folder or a damaged copy.
    """
    folder = tsplib_source().folder(data_dir)
    if folder is None:
        raise InputError(str(tsplib_source().unavailable(data_dir)))
    archive = folder / _FILES[0]
    found = []
    try:
        with open(folder / _FILES[1], newline="", encoding="utf-8") as table, zipfile.ZipFile(archive) as files:
            optima = {row["name"]: int(row["optimum"]) for row in csv.DictReader(table)}
            texts = {Path(n).name: files.read(n).decode("latin-1") for n in files.namelist()}
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive.parent} is damaged: {error}") from None
    names = [n.removesuffix(".tsp") for n in texts if n.endswith(".tsp")]
    if len(names) != _COUNT or set(names) != set(optima):
        raise InputError(f"{archive} is damaged: {len(names)} instances, expected {_COUNT} that are listed beside it")
    for name in names:
        tour = texts.get(f"{name}.opt.tour")
        instance = parse_tsplib(texts[f"{name}.tsp"], tour, optima[name])
        if instance.tour is not None and instance.length(instance.tour) != instance.optimum:
            raise InputError(f"{archive} is damaged: the tour of {name} is not of the optimal length")
        if most is None or len(instance.distance) <= most:
            found.append(instance)
    return sorted(found, key=lambda i: (len(i.distance), i.name))


def parse_tsplib(text: str, tour: str | None = None, optimum: int | None = None) -> TSPInstance:
    """Return the instance of a `.tsp` file.

    Distances may be `EUC_2D`, `CEIL_2D`, `ATT`, `GEO`, or `EXPLICIT` as `FULL_MATRIX`, `UPPER_ROW`, `LOWER_ROW`,
    `UPPER_DIAG_ROW` or `LOWER_DIAG_ROW`.

    Args:
        text: Contents of the file.
        tour: Contents of the `.opt.tour` file, if there is one.
        optimum: Length of the shortest tour, if it is known.

    Raises:
        InputError: For another kind of problem, of distances, or a file that is cut off.
    """
    fields, numbers = _sections(text)
    name = fields.get("NAME", "without a name").removesuffix(".tsp")
    kind, form = fields.get("EDGE_WEIGHT_TYPE", ""), fields.get("EDGE_WEIGHT_FORMAT", "")
    if not fields.get("TYPE", "TSP").startswith("TSP") or not fields.get("DIMENSION", "").isdigit():
        raise InputError(f"{name} must be a file of TYPE TSP with a DIMENSION, got TYPE {fields.get('TYPE')!r}")
    n = int(fields["DIMENSION"])
    points = None
    rows = numbers.get("NODE_COORD_SECTION", numbers.get("DISPLAY_DATA_SECTION", []))
    if rows:
        if len(rows) != 3 * n:
            raise InputError(f"{name} must have {n} points, got {len(rows) / 3:g}")
        points = torch.tensor(rows, dtype=torch.float64).view(n, 3)[:, 1:]
    if kind == "EXPLICIT":
        distance = _explicit(numbers.get("EDGE_WEIGHT_SECTION", []), n, form, name)
    elif kind in _DISTANCES and points is not None:
        distance = _DISTANCES[kind](points)
    else:
        known = ", ".join([*_DISTANCES, "EXPLICIT"])
        raise InputError(f"{name} must have points and an EDGE_WEIGHT_TYPE out of {known}, got {kind!r}")
    distance.fill_diagonal_(0)
    if (distance != distance.T).any():
        raise InputError(f"{name} must have symmetric distances; asymmetric problems are not supported")
    best = None
    if tour is not None:
        order = [int(v) for v in _sections(tour)[1].get("TOUR_SECTION", []) if v > 0]
        best = torch.tensor(order) - 1
        if sorted(order) != list(range(1, n + 1)):
            raise InputError(f"the tour of {name} must visit {n} nodes once, got {order!r:.60}")
    return TSPInstance(name, distance, points, optimum, best)


def _sections(text: str) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Return fields `KEY : VALUE`, and the numbers of each section."""
    fields: dict[str, str] = {}
    numbers: dict[str, list[float]] = {}
    section = ""
    for line in io.StringIO(text):
        words = line.split()
        if not words or words[0] == "EOF":
            section = "" if words else section
        elif words[0].endswith("_SECTION"):
            section = words[0]
            numbers[section] = []
        elif words[0][0].isalpha():
            key, _, value = line.partition(":")
            section = ""
            fields[key.strip()] = value.strip()
        elif section:
            try:
                numbers[section] += [float(w) for w in words]
            except ValueError:
                raise InputError(f"{section} must hold numbers, got {line.strip()!r:.60}") from None
    return fields, numbers


def _explicit(values: list[float], n: int, form: str, name: str) -> Tensor:
    offset = {"UPPER_ROW": 1, "LOWER_ROW": -1}.get(form, 0)
    if form == "FULL_MATRIX":
        places = torch.ones(n, n, dtype=torch.bool)
    elif form in ("UPPER_ROW", "UPPER_DIAG_ROW"):
        places = torch.ones(n, n).triu(offset) > 0
    elif form in ("LOWER_ROW", "LOWER_DIAG_ROW"):
        places = torch.ones(n, n).tril(offset) > 0
    else:
        raise InputError(f"{name} has distances as {form!r}, expected a full, upper or lower matrix in rows")
    if len(values) != int(places.sum()):
        raise InputError(f"{name} must have {int(places.sum())} distances as {form}, got {len(values)}")
    matrix = torch.zeros(n, n, dtype=torch.long)
    matrix[places] = torch.tensor(values, dtype=torch.float64).long()
    return matrix if form == "FULL_MATRIX" else matrix + matrix.T - torch.diag(matrix.diag())


def _planar(points: Tensor) -> Tensor:
    return (points[:, None] - points[None]).square().sum(-1)


def _pseudo_euclidean(points: Tensor) -> Tensor:
    real = (_planar(points) / 10).sqrt()
    near = (real + 0.5).floor()
    return (near + (near < real)).long()


def _geographical(points: Tensor) -> Tensor:
    degrees = points.trunc()
    latitude, longitude = (_PI * (degrees + 5 * (points - degrees) / 3) / 180).T
    q1 = (longitude[:, None] - longitude[None]).cos()
    q2 = (latitude[:, None] - latitude[None]).cos()
    q3 = (latitude[:, None] + latitude[None]).cos()
    angle = (0.5 * ((1 + q1) * q2 - (1 - q1) * q3)).clamp(-1, 1).arccos()
    return (6378.388 * angle + 1).floor().long()


_DISTANCES = {
    "EUC_2D": lambda p: (_planar(p).sqrt() + 0.5).floor().long(),
    "CEIL_2D": lambda p: _planar(p).sqrt().ceil().long(),
    "ATT": _pseudo_euclidean,
    "GEO": _geographical,
}
