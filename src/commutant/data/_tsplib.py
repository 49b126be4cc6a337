"""Instances of the traveling salesman problem in the format of TSPLIB (Reinelt 1991)."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._sources import Source

_FILES = ("tsplib/tsplib.zip", "tsplib/optima.csv")
_COUNT = 58
_MOST = 1e12  # largest number, so that squares of distances are exact enough to be rounded
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
        whole = isinstance(tour, Tensor) and not tour.is_floating_point() and tour.dim() == 1
        if not whole or sorted(tour.tolist()) != list(range(len(self.distance))):
            raise InputError(f"a tour must be a permutation of 0 .. {len(self.distance) - 1}, got {tour!r:.60}")
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
    except (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
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
        InputError: For another kind of problem or of distances, fixed edges, numbers that do not fit, or a file that is
            cut off.
    """
    fields, rows = _sections(text)
    name = fields.get("NAME", "without a name").removesuffix(".tsp")
    kind, form = fields.get("EDGE_WEIGHT_TYPE", ""), fields.get("EDGE_WEIGHT_FORMAT", "")
    size = fields.get("DIMENSION", "")
    if not fields.get("TYPE", "TSP").startswith("TSP") or not (size.isascii() and size.isdecimal()):
        raise InputError(f"{name} must be a file of TYPE TSP with a DIMENSION, got TYPE {fields.get('TYPE')!r}")
    if other := set(rows) - {"NODE_COORD_SECTION", "DISPLAY_DATA_SECTION", "EDGE_WEIGHT_SECTION"}:
        raise InputError(f"{name} has a {min(other)}, which is not supported: it would be another problem without it")
    n = int(size)
    given = rows.get("NODE_COORD_SECTION") or rows.get("DISPLAY_DATA_SECTION")
    points = _points(given, n, name) if given else None
    if kind == "EXPLICIT":
        distance = _explicit([v for row in rows.get("EDGE_WEIGHT_SECTION", []) for v in row], n, form, name)
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
        order = [v for row in _sections(tour)[1].get("TOUR_SECTION", []) for v in row]
        order = order[: order.index(-1)] if -1 in order else order
        if sorted(order) != list(range(1, n + 1)):
            raise InputError(f"the tour of {name} must visit {n} nodes once, got {order!r:.60}")
        best = torch.tensor(order, dtype=torch.long) - 1
    return TSPInstance(name, distance, points, optimum, best)


def _sections(text: str) -> tuple[dict[str, str], dict[str, list[list[float]]]]:
    """Return fields `KEY : VALUE`, and the rows of numbers of each section."""
    fields: dict[str, str] = {}
    rows: dict[str, list[list[float]]] = {}
    section, ended = "", False
    for line in io.StringIO(text):
        words = line.split()
        if not words or words[0] == "EOF":
            ended, section = bool(words) or ended, "" if words else section
        elif words[0].endswith("_SECTION"):
            section = words[0]
            rows[section] = []
        elif words[0][0].isalpha():
            key, _, value = line.partition(":")
            section = ""
            fields[key.strip()] = value.strip()
        elif section:
            try:
                rows[section].append([float(w) for w in words])
            except ValueError:
                raise InputError(f"{section} must hold numbers, got {line.strip()!r:.60}") from None
            if not all(abs(v) < _MOST for v in rows[section][-1]):
                raise InputError(f"{section} must hold numbers below {_MOST:g}, got {line.strip()!r:.60}")
    if not ended and not text.endswith("\n"):
        raise InputError("the file ends within a line and without EOF, so it may be cut off; end it with a line EOF")
    return fields, rows


def _points(rows: list[list[float]], n: int, name: str) -> Tensor:
    """Return the points in the order of their numbers."""
    if len(rows) != n or any(len(row) != 3 for row in rows):
        raise InputError(f"{name} must have {n} points in the plane, one a line, got {len(rows)} lines")
    if sorted(row[0] for row in rows) != list(range(1, n + 1)):
        raise InputError(f"the points of {name} must be numbered from 1 to {n}, each number once")
    return torch.tensor(sorted(rows), dtype=torch.float64).view(n, 3)[:, 1:]


def _explicit(values: list[float], n: int, form: str, name: str) -> Tensor:
    triangle, diagonal = n * (n - 1) // 2, n * (n + 1) // 2
    known = {"FULL_MATRIX": n * n, "UPPER_ROW": triangle, "LOWER_ROW": triangle, "UPPER_DIAG_ROW": diagonal,
             "LOWER_DIAG_ROW": diagonal}  # fmt: skip
    if form not in known:
        raise InputError(f"{name} has distances as {form!r}, expected a full, upper or lower matrix in rows")
    if len(values) != known[form]:
        raise InputError(f"{name} must have {known[form]} distances as {form}, got {len(values)}")
    if not all(v.is_integer() for v in values):
        wrong = next(v for v in values if not v.is_integer())
        raise InputError(f"{name} must have whole numbers as distances, got {wrong}")
    places = torch.ones(n, n, dtype=torch.bool)
    offset = 0 if "DIAG" in form else 1
    if form.startswith("UPPER"):
        places = places.triu(offset)
    elif form.startswith("LOWER"):
        places = places.tril(-offset)
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
