"""Ground sets with the subset to choose: anomalies among images, planted points, and points to train on."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._checks import finite, one_of, whole
from .._errors import InputError

Shape: TypeAlias = Literal["moons", "gaussian"]


@dataclass(frozen=True)
class SubsetExamples:
    """Ground sets of equal size, each with the subset to choose.

    Attributes:
        x: Elements, `(sets, size, ...)`.
        chosen: Whether each element is in the subset, `(sets, size)`.
    """

    x: Float[Tensor, "sets size *shape"]
    chosen: Bool[Tensor, "sets size"]

    def to(self, device: torch.device) -> SubsetExamples:
        """Return the examples on another device."""
        return SubsetExamples(self.x.to(device), self.chosen.to(device))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor) -> SubsetExamples:
        return SubsetExamples(self.x[rows], self.chosen[rows])


def anomalous_sets(
    generator: torch.Generator,
    images: Float[Tensor, "images *shape"],
    labels: Int[Tensor, " images"],
    sets: int,
    *,
    size: int = 8,
    anomalies: tuple[int, int] = (2, 3),
    noise: float = 0.0,
) -> SubsetExamples:
    """Draw sets of images of one class, of which a few are replaced by images of other classes.

    The subset to choose are the replaced images. Each is drawn from another class, independently, at a random position.

    Args:
        generator: Source of randomness.
        images: Images, `(images, ...)`.
        labels: Class of each image, of at least two classes.
        sets: Number of sets.
        size: Number of images in a set.
        anomalies: Smallest and largest number of replaced images.
        noise: Standard deviation of Gaussian noise on every pixel.

    Raises:
        InputError: If the numbers do not fit.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = anomalous_sets(generator, torch.rand(50, 4), torch.arange(50) % 5, 3)
        >>> found.x.shape, found.chosen.sum(1)
        (torch.Size([3, 8, 4]), tensor([2, 3, 3]))
    """
    whole("sets", sets)
    whole("size", size)
    finite("noise", noise)
    low, high = anomalies
    if len(labels) != len(images) or labels.is_floating_point() or (len(labels) and int(labels.min()) < 0):
        raise InputError(f"labels must hold a class from 0 for each of {len(images)} images, got {tuple(labels.shape)}")
    if not 1 <= low <= high < size:
        raise InputError(f"anomalies must satisfy 1 <= smallest <= largest < size={size}, got {anomalies}")
    classes = int(labels.max()) + 1
    rows = [(labels == c).nonzero()[:, 0] for c in range(classes)]
    if classes < 2 or not all(len(part) for part in rows):
        raise InputError(f"images must have at least two classes, numbered from 0 without a gap, got {classes}")
    normal = torch.randint(classes, (sets, 1), generator=generator)
    count = torch.randint(low, high + 1, (sets, 1), generator=generator)
    chosen = torch.rand(sets, size, generator=generator).argsort(1).argsort(1) < count
    other = (normal + torch.randint(1, classes, (sets, size), generator=generator)) % classes
    label = torch.where(chosen, other, normal)
    share = torch.rand(sets, size, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([len(part) for part in rows])
    starts = lengths.cumsum(0) - lengths
    x = images[torch.cat(rows)[starts[label] + (share * lengths[label]).long()]]
    return SubsetExamples(x + noise * torch.randn(x.shape, generator=generator), chosen)


def planted_subsets(
    generator: torch.Generator, shape: Shape, sets: int, *, size: int = 100, chosen: int = 10
) -> SubsetExamples:
    """Draw sets of points of one cluster, of which a few are replaced by points of the other cluster.

    The subset to choose are the replaced points (Ou et al. 2022, section 6.1). Which of the two clusters is the
    majority is random for each set.

    Args:
        generator: Source of randomness.
        shape: `"moons"`: two half circles with noise 0.1, doubled and shifted by (-1, -0.2). `"gaussian"`: normal
            distributions of standard deviation 0.5 around (1, 1) and (-1, -1), both divided by the root of two.
        sets: Number of sets.
        size: Number of points of a set.
        chosen: Number of points to choose.

    Raises:
        InputError: If the numbers do not fit.

    Example:
        >>> planted_subsets(torch.Generator().manual_seed(0), "moons", 4).x.shape
        torch.Size([4, 100, 2])
    """
    one_of("shape", shape, ("moons", "gaussian"))
    whole("sets", sets)
    whole("size", size)
    whole("chosen", chosen)
    if not 0 < chosen < size:
        raise InputError(f"chosen must lie between 1 and size - 1 = {size - 1}, got {chosen}")
    mask = torch.rand(sets, size, generator=generator).argsort(1).argsort(1) < chosen
    cluster = mask ^ (torch.rand(sets, 1, generator=generator) < 0.5)
    noise = torch.randn(sets, size, 2, generator=generator)
    if shape == "gaussian":
        center = torch.where(cluster, 1.0, -1.0)[..., None] / 2**0.5
        return SubsetExamples(center + 0.5 * noise, mask)
    angle = torch.rand(sets, size, generator=generator) * torch.pi
    outer = torch.stack([angle.cos(), angle.sin()], -1)
    inner = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], -1)
    points = torch.where(cluster[..., None], outer, inner) + 0.1 * noise
    return SubsetExamples(2 * points + torch.tensor([-1.0, -0.2]), mask)


def training_panels(
    generator: torch.Generator,
    x: Float[Tensor, "rows features"],
    y: Int[Tensor, " rows"],
    sets: int,
    *,
    size: int = 12,
    chosen: int = 5,
    neighbors: int = 1,
) -> tuple[SubsetExamples, Float[Tensor, "sets subsets"]]:
    """Draw candidate training points of a nearest-neighbor classifier, and find the best few by brute force.

    A ground set is `size` rows of a table with their classes, as one vector of features and the one-hot class. The
    subset to choose are the `chosen` rows with which a classifier of the nearest `neighbors` rows is most accurate on
    all other rows of the table. Ties are broken by the mean distance of all rows to the nearest chosen row of their
    class.

    Args:
        generator: Source of randomness.
        x: Standardized features, `(rows, features)`.
        y: Classes, `(rows,)`.
        sets: Number of ground sets.
        size: Number of candidates.
        chosen: Number of rows to choose.
        neighbors: Number of neighbors that vote; ties go to the nearest.

    Returns:
        The examples, and the accuracy of each subset of `chosen` candidates, in the order of
        `itertools.combinations`.

    Raises:
        InputError: If the numbers do not fit, or there are more than 100 000 subsets.
    """
    whole("sets", sets)
    if not 0 < neighbors <= chosen < size < len(x):
        raise InputError(f"needs neighbors <= chosen < size < {len(x)} rows, got {neighbors}, {chosen}, {size}")
    if not bool(x.isfinite().all()):
        raise InputError("features must be finite")
    if (count := math.comb(size, chosen)) > 100_000:
        raise InputError(f"{count} subsets are too many; lower size or chosen")
    subsets = torch.tensor(list(itertools.combinations(range(size), chosen)))
    classes = int(y.max()) + 1
    distance = torch.cdist(x, x)
    found, masks, scores = [], [], []
    for _ in range(sets):
        rows = torch.randperm(len(x), generator=generator)[:size]
        rest = torch.ones(len(x), dtype=torch.bool)
        rest[rows] = False
        near = distance[rest][:, rows][:, subsets]  # (rows, subsets, chosen)
        right = _accuracy(near, y[rows][subsets], y[rest], neighbors, classes)
        own = torch.where(y[rows][subsets] == y[rest][:, None, None], near, distance.max()).amin(2).mean(0)
        best = int((right - 1e-6 * own / own.max()).argmax())
        mask = torch.zeros(size, dtype=torch.bool)
        mask[subsets[best]] = True
        found.append(torch.cat([x[rows], torch.nn.functional.one_hot(y[rows], classes).to(x.dtype)], 1))
        masks.append(mask)
        scores.append(right)
    return SubsetExamples(torch.stack(found), torch.stack(masks)), torch.stack(scores)


def _accuracy(near: Tensor, labels: Tensor, truth: Tensor, neighbors: int, classes: int) -> Tensor:
    """Return the accuracy of the classifier of each subset, `(subsets,)`."""
    closest = near.topk(neighbors, largest=False)
    votes = torch.nn.functional.one_hot(labels.expand(near.shape).gather(2, closest.indices), classes)
    weight = 1 + 1e-3 * torch.arange(neighbors, 0, -1)  # ties go to the nearest
    guessed = (votes * weight[:, None]).sum(2).argmax(2)
    return (guessed == truth[:, None]).double().mean(0)
