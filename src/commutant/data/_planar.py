"""Tasks whose answers are positions of points: hulls, triangulations, tours, orders; and their file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import Delaunay, QhullError
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError
from ..algebra import convex_hull, shortest_hamiltonian_path

TourLabels: TypeAlias = Literal["optimal", "local-search"]


@dataclass(frozen=True, eq=False)
class PointerExamples:
    """Sets of elements, each with the sequence of positions that answers the task.

    Attributes:
        x: Elements, zero after the last one of a set, `(sets, n, features)`.
        targets: Indices of elements, then -1, at least once, `(sets, steps)`.
        lengths: Number of elements of each set, `(sets,)`.
    """

    x: Float[Tensor, "sets n features"]
    targets: Int[Tensor, "sets steps"]
    lengths: Int[Tensor, " sets"]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> PointerExamples:
        return PointerExamples(self.x[rows], self.targets[rows], self.lengths[rows])

    def to(self, device: torch.device) -> PointerExamples:
        """Return the examples on another device."""
        return PointerExamples(self.x.to(device), self.targets.to(device), self.lengths.to(device))


def hull_examples(generator: torch.Generator, sets: int, n: int | tuple[int, int]) -> PointerExamples:
    """Draw points in the unit square, with their convex hull.

    The answer starts at the vertex of the smallest index, runs counter-clockwise, and repeats its first vertex.

    Args:
        generator: Source of randomness.
        sets: Number of sets.
        n: Number of points, at least three, or the range from which it is drawn.
    """
    x, lengths = _points(generator, sets, n, 3, 2)
    return PointerExamples(x, _closed(convex_hull(x, lengths)), lengths)


def delaunay_examples(generator: torch.Generator, sets: int, n: int | tuple[int, int]) -> PointerExamples:
    """Draw points in the unit square, with their Delaunay triangulation.

    Each triangle is given by increasing indices; triangles are sorted by the coordinates of their incenters.

    Args:
        generator: Source of randomness.
        sets: Number of sets.
        n: Number of points, at least three, or the range from which it is drawn.
    """
    x, lengths = _points(generator, sets, n, 3, 2)
    rows = [triangulation(points[:k]).flatten().tolist() for points, k in zip(x, lengths.tolist(), strict=True)]
    return PointerExamples(x, _padded(rows), lengths)


def triangulation(points: Float[Tensor, "n 2"]) -> Int[Tensor, "triangles 3"]:
    """Return the Delaunay triangles of points in general position, sorted by incenter.

    Args:
        points: Points, `(n, 2)`. For fewer than three points, or points on a line, there are no triangles.
    """
    p = points.detach().double().cpu().numpy()
    if not np.isfinite(p).all():
        raise InputError("points must be finite, got NaN or infinite coordinates")
    if len(p) < 3:
        return torch.zeros(0, 3, dtype=torch.int64)
    try:
        found = np.sort(Delaunay(p).simplices, axis=1).astype(np.int64)
    except QhullError:
        return torch.zeros(0, 3, dtype=torch.int64)
    corner = p[found]
    side = np.linalg.norm(corner[:, [1, 2, 0]] - corner[:, [2, 0, 1]], axis=-1)  # opposite each corner
    incenter = (side[..., None] * corner).sum(1) / side.sum(1, keepdims=True)
    return torch.from_numpy(found[np.lexsort((incenter[:, 1], incenter[:, 0]))])


def tour_examples(
    generator: torch.Generator, sets: int, n: int | tuple[int, int], labels: TourLabels = "optimal"
) -> PointerExamples:
    """Draw points in the unit square, with a short tour through all of them.

    The tour starts at point 0, and its second index is smaller than its last one; it does not repeat its start.

    Args:
        generator: Source of randomness.
        sets: Number of sets.
        n: Number of points, or the range from which it is drawn.
        labels: `"optimal"` for exact tours of at most 20 points; `"local-search"` for greedy edges with 2-opt and
            or-opt.
    """
    one_of("labels", labels, ("optimal", "local-search"))
    most = max(n) if isinstance(n, tuple) else n
    if labels == "optimal" and most > 20:
        raise InputError(f"optimal tours have at most 20 points, got {most}; use labels='local-search'")
    x, lengths = _points(generator, sets, n, 1, 2)
    targets = torch.full((sets, x.shape[1] + 1), -1)
    for size in lengths.unique().tolist():
        rows = (lengths == size).nonzero()[:, 0]
        distance = torch.cdist(x[rows, :size].double(), x[rows, :size].double())
        distance = (distance + distance.mT) / 2
        found = shortest_hamiltonian_path(distance, closed=True, exact=labels == "optimal")
        targets[rows, :size] = canonical_tour(found)
    return PointerExamples(x, targets, lengths)


def canonical_tour(tour: Int[Tensor, "batch n"]) -> Int[Tensor, "batch n"]:
    """Return tours from point 0, in the direction in which the second index is smaller than the last one.

    Args:
        tour: Permutations of the points, `(batch, n)`.
    """
    n = tour.shape[1]
    start = (tour == 0).long().argmax(1, keepdim=True)
    place = torch.arange(n, device=tour.device)
    turned = tour.gather(1, (start + place).remainder(n))
    back = turned.gather(1, (-place).remainder(n).expand_as(turned))
    return torch.where((turned[:, 1:2] > turned[:, -1:]) if n > 1 else turned < 0, back, turned)


def sorting_examples(generator: torch.Generator, sets: int, n: int | tuple[int, int]) -> PointerExamples:
    """Draw uniform numbers, with the positions that sort them.

    Args:
        generator: Source of randomness.
        sets: Number of sets.
        n: Number of elements, or the range from which it is drawn.
    """
    x, lengths = _points(generator, sets, n, 1, 1)
    missing = torch.arange(x.shape[1]) >= lengths[:, None]
    order = x[..., 0].masked_fill(missing, torch.inf).argsort(dim=1, stable=True)
    targets = torch.nn.functional.pad(order.masked_fill(missing, -1), (0, 1), value=-1)
    return PointerExamples(x, targets, lengths)


def read_pointer_file(path: str | Path) -> PointerExamples:
    """Read examples in the format of the published data: `x1 y1 x2 y2 ... output i1 i2 ...` with indices from 1.

    Args:
        path: Text file with one example per line.

    Raises:
        InputError: If a line can't be read; the message names it.
    """
    points, rows = [], []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        left, word, right = line.partition("output")
        try:
            values, row = [float(v) for v in left.split()], [int(v) - 1 for v in right.split()]
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}; expected coordinates, 'output', indices") from None
        n = len(values) // 2
        with np.errstate(over="ignore"):
            single = np.array(values, dtype=np.float64).astype(np.float32)
        if not word or len(values) != 2 * n or not n or not np.isfinite(single).all():
            raise InputError(f"{path}, line {number}: expected pairs of finite coordinates, then the word 'output'")
        if any(not 0 <= i < n for i in row):
            raise InputError(f"{path}, line {number}: indices must lie in 1..{n}, got {[i + 1 for i in row]}")
        points.append(torch.tensor(values).reshape(n, 2))
        rows.append(row)
    if not rows:
        raise InputError(f"{path} has no examples; expected lines 'x1 y1 x2 y2 ... output i1 i2 ...'")
    lengths = torch.tensor([len(p) for p in points])
    return PointerExamples(torch.nn.utils.rnn.pad_sequence(points, batch_first=True), _padded(rows), lengths)


def write_pointer_file(path: str | Path, examples: PointerExamples) -> None:
    """Write examples of points in the plane in the format of `read_pointer_file`, which reads the same float32 values.

    Args:
        path: Text file.
        examples: Examples with two features.
    """
    if examples.x.shape[-1] != 2:
        raise InputError(f"the format holds points in the plane, got {examples.x.shape[-1]} features")
    lines = []
    for x, row, n in zip(examples.x, examples.targets.tolist(), examples.lengths.tolist(), strict=True):
        values = " ".join(repr(v) for v in x[:n].flatten().tolist())
        lines.append(f"{values} output {' '.join(str(i + 1) for i in row if i >= 0)}\n")
    try:
        Path(path).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from None


def _points(
    generator: torch.Generator, sets: int, n: int | tuple[int, int], least: int, features: int
) -> tuple[Tensor, Tensor]:
    """Draw points and the size of each set."""
    whole("sets", sets)
    pair = tuple(n) if isinstance(n, tuple | list) else (n, n)
    if len(pair) != 2:
        raise InputError(f"n must be a number or a range (low, high) with low <= high, got {n}")
    low, high = pair
    whole("n", low, least)
    whole("n", high, least)
    if high < low:
        raise InputError(f"n must be a number or a range (low, high) with low <= high, got {n}")
    lengths = torch.randint(low, high + 1, (sets,), generator=generator)
    x = torch.rand(sets, high, features, generator=generator)
    return x.masked_fill((torch.arange(high) >= lengths[:, None])[..., None], 0), lengths


def _closed(hull: Tensor) -> Tensor:
    """Return hulls with the first vertex repeated, and at least one -1."""
    closed = torch.nn.functional.pad(hull, (0, 2), value=-1)
    count = (hull >= 0).sum(1, keepdim=True)
    closed = closed.scatter(1, count, hull[:, :1])
    return closed[:, : int(count.max()) + 2]


def _padded(rows: list[list[int]]) -> Tensor:
    """Return rows of indices filled up with -1, at least once."""
    steps = max(len(r) for r in rows) + 1
    return torch.tensor([r + [-1] * (steps - len(r)) for r in rows])
