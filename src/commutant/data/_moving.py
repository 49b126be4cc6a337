"""Sequences of images that move at constant velocity over a torus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import one_of
from .._errors import InputError, require
from ._images import image_part


@dataclass(frozen=True)
class Glyphs:
    """Small grayscale images that move across larger frames."""

    images: Float[Tensor, "count height width"]
    """Images in 0..1, `(count, height, width)`."""
    source: str
    """Origin of the images, in words."""

    def __len__(self) -> int:
        return self.images.shape[0]


def digit_glyphs(part: str) -> Glyphs:
    """Return scikit-learn's handwritten digits, 8 x 8 pixels.

    Args:
        part: Part of the data, `"train"` (the first 1400 digits) or `"test"` (the other 397).
    """
    one_of("part", part, ("train", "test"))
    images = torch.from_numpy(require("sklearn.datasets", "evidence").load_digits().images).float() / 16
    if images.shape != (1797, 8, 8):
        raise InputError(f"expected scikit-learn's 1797 digits of 8 x 8, got {tuple(images.shape)}")
    return Glyphs(images[:1400] if part == "train" else images[1400:], "scikit-learn digits")


def mnist_glyphs(part: str, data_dir: str | None = None) -> Glyphs:
    """Return the digits of MNIST, 28 x 28 pixels, from the places that `image_classes` reads.

    Args:
        part: Part of the data, `"train"` or `"test"`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: If the part is unknown, the copy is damaged, or MNIST is neither local nor downloadable.
    """
    images, _ = image_part("mnist", part, data_dir)
    return Glyphs(torch.from_numpy(images[:, 0]).float() / 255, "MNIST")


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
    """Draw sequences of images that drift over a torus, each with its own start and velocity.

    Overlapping images are added and clamped to 0..1. Velocities are integers, in pixels per frame.

    Args:
        generator: Source of randomness.
        sequences: Number of sequences.
        glyphs: Images to move, no larger than the torus.
        size: Side of the square torus, in pixels.
        frames: Number of frames of each sequence.
        speed: Largest velocity along each axis, in pixels per frame; velocities are uniform on -speed..speed.
        velocity: Velocity of all images, in pixels per frame, `(2,)`; used instead of `speed`.
        each: Number of images in each sequence.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> flowing_glyphs(g, 3, digit_glyphs("train"), size=14, frames=5, speed=1).shape
        torch.Size([3, 5, 1, 14, 14])
    """
    height, width = glyphs.images.shape[1:]
    if max(height, width) > size or not len(glyphs):
        raise InputError(f"a torus of size={size} must hold the images, got {len(glyphs)} of {height} x {width}")
    if (speed is None) == (velocity is None) or (speed or 0) < 0:
        raise InputError(f"exactly one of speed (not negative) and velocity must be given, got {speed} and {velocity}")
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
