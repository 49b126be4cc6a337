"""Images with classes: scikit-learn's digits, or the usual sets from a data folder."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError, require
from ._graphs import data_folder

_IDX = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
_PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
_CIFAR = Path("cifar10-6k") / "cifar10_6k.npz"
NAMES = ("digits", *_IDX, "cifar10-6k")


@dataclass(frozen=True)
class ImageClasses:
    """Images `(count, channels, height, width)` in 0..1 with ten classes, to train on and to test on."""

    train: tuple[Float[Tensor, "train channels height width"], Int[Tensor, " train"]]
    test: tuple[Float[Tensor, "test channels height width"], Int[Tensor, " test"]]
    source: str


def images_unavailable(name: str, data_dir: str | None) -> str | None:
    """Why `image_classes` would fail, or None."""
    if name not in NAMES:
        return f"name must be one of {', '.join(NAMES)}, got {name!r}"
    if name == "digits":
        return None
    folder = data_folder(data_dir)
    missing = [file for file in _files(name) if folder is None or not (folder / file).is_file()]
    return f"{name} needs a data folder (--data-dir) with {missing[0]}" if missing else None


def image_classes(name: str = "digits", data_dir: str | None = None) -> ImageClasses:
    """A set of images with classes.

    Args:
        name: `"digits"`, scikit-learn's 1797 of 8 x 8, 500 of them (the same at every call) to test on; `"mnist"` or
            `"fashion-mnist"`, from the original idx files in `DATA_DIR/mnist` or `DATA_DIR/fashion-mnist`;
            `"cifar10-6k"`, a balanced part of CIFAR-10, 5000 and 1000 images, from `DATA_DIR/cifar10-6k`.
        data_dir: the data folder.

    Raises:
        InputError: for an unknown name, or a file that is missing or damaged.

    Example:
        >>> image_classes().train[0].shape
        torch.Size([1297, 1, 8, 8])
    """
    reason = images_unavailable(name, data_dir)
    if reason is not None:
        raise InputError(reason)
    if name == "digits":
        found = require("sklearn.datasets", "evidence").load_digits()
        x, y = torch.from_numpy(found.images).float().unsqueeze(1) / 16, torch.from_numpy(found.target).long()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        first, rest = order[:1297], order[1297:]
        return ImageClasses((x[first], y[first]), (x[rest], y[rest]), "scikit-learn digits")
    folder = Path(str(data_folder(data_dir)))
    if name == "cifar10-6k":
        try:
            with np.load(folder / _CIFAR) as stored:
                train, test = ((_pixels(stored[f"x_{p}"]), torch.from_numpy(stored[f"y_{p}"]).long()) for p in _PARTS)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{folder / _CIFAR} is damaged: {error}") from error
        return ImageClasses(train, test, "CIFAR-10, 500 and 100 images a class")
    train, test = (
        (
            _pixels(read_idx(folder / name / f"{prefix}-images-idx3-ubyte.gz", 16, (count, 1, 28, 28))),
            torch.from_numpy(read_idx(folder / name / f"{prefix}-labels-idx1-ubyte.gz", 8, (count,))).long(),
        )
        for prefix, count in _PARTS.values()
    )
    return ImageClasses(train, test, _IDX[name])


def read_idx(path: Path, header: int, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of a compressed idx file behind its header.

    Raises:
        InputError: for a file that is damaged or of another size.
    """
    try:
        raw = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    wanted = header + int(np.prod(shape))
    if raw.size != wanted:
        raise InputError(f"{path} holds {raw.size} bytes, not the {wanted} of {shape[0]} entries")
    return raw[header:].reshape(shape).copy()


def _files(name: str) -> list[Path]:
    if name == "cifar10-6k":
        return [_CIFAR]
    kinds = ("images-idx3", "labels-idx1")
    return [Path(name) / f"{prefix}-{kind}-ubyte.gz" for prefix, _ in _PARTS.values() for kind in kinds]


def _pixels(raw: np.ndarray) -> Tensor:
    return torch.from_numpy(raw).float() / 255
