"""Sequences of images in which things move at constant velocity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError, require
from ._graphs import data_folder
from ._images import read_idx

_MNIST = {"train": ("train", 60_000), "test": ("t10k", 10_000)}


@dataclass(frozen=True)
class Glyphs:
    """Small grey images to move about: `images (count, height, width)` in 0..1, and where they came from."""

    images: Float[Tensor, "count height width"]
    source: str

    def __len__(self) -> int:
        return self.images.shape[0]


def digit_glyphs(part: str) -> Glyphs:
    """scikit-learn's handwritten digits, 8 x 8: the first 1400 for `"train"`, the other 397 for `"test"`."""
    images = torch.from_numpy(require("sklearn.datasets", "evidence").load_digits().images).float() / 16
    if images.shape != (1797, 8, 8) or part not in _MNIST:
        raise InputError(
            f"expected 1797 digits of 8 x 8 and part 'train' or 'test', got {tuple(images.shape)}, {part!r}"
        )
    return Glyphs(images[:1400] if part == "train" else images[1400:], "scikit-learn digits")


def mnist_unavailable(data_dir: str | None) -> str | None:
    """Why `mnist_glyphs` would fail, or None."""
    folder = data_folder(data_dir)
    if folder is not None and all(
        (folder / "mnist" / f"{p}-images-idx3-ubyte.gz").is_file() for p, _ in _MNIST.values()
    ):
        return None
    return "MNIST needs a data folder (--data-dir) with mnist/train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz"


def mnist_glyphs(part: str, data_dir: str | None = None) -> Glyphs:
    """MNIST's digits, 28 x 28, from the original files in `DATA_DIR/mnist`.

    Raises:
        InputError: when a file is missing or damaged.
    """
    if part not in _MNIST:
        raise InputError(f"part must be 'train' or 'test', got {part!r}")
    reason = mnist_unavailable(data_dir)
    if reason is not None:
        raise InputError(reason)
    prefix, count = _MNIST[part]
    path = Path(str(data_folder(data_dir))) / "mnist" / f"{prefix}-images-idx3-ubyte.gz"
    return Glyphs(torch.from_numpy(read_idx(path, 16, (count, 28, 28))).float() / 255, "MNIST")


def flowing_glyphs(
    generator: torch.Generator,
    sequences: int,
    glyphs: Glyphs,
    *,
    size: int,
    frames: int,
    speed: int | None = None,
    velocity: Int[Tensor, "2"] | None = None,
    each: int = 2,
) -> Float[Tensor, "sequences frames 1 size size"]:
    """Images drifting over a torus: each at its own start and whole velocity, their sum clamped to 0..1.

    Args:
        generator: source of randomness.
        sequences: how many.
        glyphs: the images, no larger than the torus.
        size: of the square torus.
        frames: length.
        speed: velocities are uniform on -speed..speed along each axis; or
        velocity: all move at this one.
        each: images a sequence.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> flowing_glyphs(g, 3, digit_glyphs("train"), size=14, frames=5, speed=1).shape
        torch.Size([3, 5, 1, 14, 14])
    """
    height, width = glyphs.images.shape[1:]
    if max(height, width) > size or not len(glyphs):
        raise InputError(f"a torus of size={size} must hold the images, got {len(glyphs)} of {height} x {width}")
    if (speed is None) == (velocity is None) or (speed or 0) < 0:
        raise InputError(f"one of speed (not negative) and velocity must be given, got {speed} and {velocity}")
    if velocity is not None and (velocity.is_floating_point() or tuple(velocity.shape) != (2,)):
        raise InputError(f"velocity must be two whole numbers, got {velocity.dtype} of shape {tuple(velocity.shape)}")
    which = torch.randint(0, len(glyphs), (sequences, each), generator=generator)
    start = torch.randint(0, size, (sequences, each, 2), generator=generator)
    if velocity is None:
        assert speed is not None
        moves = torch.randint(-speed, speed + 1, (sequences, each, 2), generator=generator)
    else:
        moves = velocity.expand(sequences, each, 2)
    canvas = torch.zeros(sequences, each, size, size)
    canvas[..., :height, :width] = glyphs.images[which]
    place = start[:, :, None] + torch.arange(frames)[:, None] * moves[:, :, None]  # (sequences, each, frames, 2)
    axis = torch.arange(size)
    rows, columns = ((axis - place[..., i, None]) % size for i in (0, 1))
    index = rows[..., :, None] * size + columns[..., None, :]
    moved = canvas.flatten(2).unsqueeze(2).expand(-1, -1, frames, -1).gather(3, index.flatten(3))
    return moved.sum(1).clamp(0, 1).unflatten(-1, (1, size, size))
