"""Images with class labels: scikit-learn's digits, MNIST, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import one_of
from .._errors import InputError, require
from ._hub import hub_source, hub_splits
from ._sources import Source

_IDX_PREFIX = {"train": "train", "test": "t10k"}
_IDX = [f"{prefix}-{kind}-ubyte.gz" for prefix in _IDX_PREFIX.values() for kind in ("images-idx3", "labels-idx1")]
_CIFAR_BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_CIFAR_SUBSET = "cifar10-6k/cifar10_6k.npz"

Part = tuple[np.ndarray, np.ndarray]
"""Images `(count, channels, height, width)` and labels `(count,)`, both of bytes."""


@dataclass(frozen=True)
class ImageClasses:
    """Images with ten classes, in a training and a test part."""

    train: tuple[Float[Tensor, "train channels height width"], Int[Tensor, " train"]]
    """Training images in 0..1, `(count, channels, height, width)`, and their labels, `(count,)`."""
    test: tuple[Float[Tensor, "test channels height width"], Int[Tensor, " test"]]
    """Test images in 0..1, `(count, channels, height, width)`, and their labels, `(count,)`."""
    source: str
    """Origin of the data, in words."""


@dataclass(frozen=True)
class PublicImages:
    """Description of a public data set of images, used to check every copy of it.

    Attributes:
        title: Name in reports.
        repository: Repository on the Hugging Face hub.
        column: Column of the images there.
        counts: Number of training and of test images.
        shape: Channels, height and width.
        digests: SHA-256 of the images and labels of each part in sorted order, or nothing.
        means: Mean of each channel of each part, or nothing.
    """

    title: str
    repository: str
    column: str
    counts: dict[str, int]
    shape: tuple[int, int, int]
    digests: dict[str, str]
    means: dict[str, tuple[float, ...]]


PUBLIC = {
    "mnist": PublicImages(
        "MNIST", "ylecun/mnist", "image", {"train": 60_000, "test": 10_000}, (1, 28, 28),
        {"train": "386a0fff07efe9ae3f934853780556ca1fe630371d4964508a3e3256c2063b0e",
         "test": "292a2c8e9008782f6c6c94df46012a17c808c2666413d175e62502bbcf68dd61"}, {},
    ),
    "fashion-mnist": PublicImages(
        "Fashion-MNIST", "zalando-datasets/fashion_mnist", "image", {"train": 60_000, "test": 10_000}, (1, 28, 28),
        {"train": "4bc58f5926b1420d49344d02d6e71205a6644e54f0d302bc45b3918681b3998e",
         "test": "81875622ad6afb3e0bbaab6b5725f6f1d7759c18ac59f6306006d04c25bd7d29"}, {},
    ),
    "cifar10": PublicImages(
        "CIFAR-10", "uoft-cs/cifar10", "img", {"train": 50_000, "test": 10_000}, (3, 32, 32), {},
        {"train": (0.4914, 0.4822, 0.4465), "test": (0.4942, 0.4851, 0.4504)},
    ),
}  # fmt: skip
NAMES = ("digits", *PUBLIC, "cifar10-6k")


def image_source(name: str) -> Source:
    """Return the source of a public set of images."""
    if name == "cifar10-6k":
        return Source(name, (_CIFAR_SUBSET,))
    files = [file for batches in _CIFAR_BATCHES.values() for file in batches] if name == "cifar10" else _IDX
    return hub_source(name, PUBLIC[name].repository, *(f"{name}/{file}" for file in files))


def images_unavailable(name: str, data_dir: str | None) -> str | None:
    """Return the reason why `image_classes` would fail or would have to download, or None.

    This function does not access the network: a data set that is only online counts as unavailable until
    `image_classes` or `commutant data NAME` has filled the cache.

    Args:
        name: Name of a data set, as for `image_classes`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    if name not in NAMES:
        return f"name must be one of {', '.join(NAMES)}, got {name!r}"
    return None if name == "digits" else image_source(name).unavailable(data_dir)


def image_classes(name: str = "digits", data_dir: str | None = None) -> ImageClasses:
    """Load a data set of images with ten classes.

    The images are read from the data folder if it holds them, otherwise from the cache of Hugging Face `datasets`,
    otherwise they are downloaded. Every copy is checked for its counts, shapes, classes and a checksum of the contents
    (for CIFAR-10, the published channel means).

    Args:
        name: Name of the data set. `"digits"`: 1797 images of 8 x 8 pixels from scikit-learn, with a fixed test part of
            500 images. `"mnist"`, `"fashion-mnist"`: 60 000 training and 10 000 test images; a data folder holds the
            original idx files (`NAME/train-images-idx3-ubyte.gz` and so on). `"cifar10"`: 50 000 training and 10 000
            test images; a data folder holds the binary version (`cifar10/data_batch_1.bin` to
            `cifar10/test_batch.bin`). `"cifar10-6k"`: a balanced subset of 5000 training and 1000 test images, only
            available from `cifar10-6k/cifar10_6k.npz` in a data folder.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: For an unknown name, a damaged copy, or a data set that is neither local nor downloadable.

    Example:
        >>> image_classes().train[0].shape
        torch.Size([1297, 1, 8, 8])
    """
    one_of("name", name, NAMES)
    if name == "digits":
        found = require("sklearn.datasets", "evidence").load_digits()
        x, y = torch.from_numpy(found.images).float().unsqueeze(1) / 16, torch.from_numpy(found.target).long()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        first, rest = order[:1297], order[1297:]
        return ImageClasses((x[first], y[first]), (x[rest], y[rest]), "scikit-learn digits")
    parts = [image_part(name, part, data_dir) for part in ("train", "test")]
    train, test = ((torch.from_numpy(x).float() / 255, torch.from_numpy(y).long()) for x, y in parts)
    return ImageClasses(train, test, PUBLIC[name].title if name in PUBLIC else "CIFAR-10, 500 and 100 images a class")


def image_part(name: str, part: str, data_dir: str | None) -> Part:
    """Return the checked images and labels of one part of a public set.

    Args:
        name: `"mnist"`, `"fashion-mnist"`, `"cifar10"` or `"cifar10-6k"`.
        part: `"train"` or `"test"`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    one_of("part", part, ("train", "test"))
    source = image_source(name)
    folder = source.folder(data_dir)
    if name == "cifar10-6k":
        if folder is None:
            raise InputError(str(source.unavailable(data_dir)))
        return _from_npz(folder / _CIFAR_SUBSET, part)
    if folder is None:
        with source.downloading():
            return _checked(name, part, *_from_hub(name, part), f"{name} of {source.origin}")
    read = _from_binary if name == "cifar10" else _from_idx
    return _checked(name, part, *read(folder / name, part, PUBLIC[name]), str(folder / name))


def _from_hub(name: str, part: str) -> Part:
    known = PUBLIC[name]
    split = hub_splits(known.repository)[part]
    pictures = np.stack([np.asarray(picture) for picture in split[known.column]])
    images = pictures[:, None] if pictures.ndim == 3 else pictures.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), np.asarray(split["label"], np.uint8)


def _from_idx(folder: Path, part: str, known: PublicImages) -> Part:
    prefix, count = _IDX_PREFIX[part], known.counts[part]
    images = _read(folder / f"{prefix}-images-idx3-ubyte.gz", 16, (count, *known.shape), gzip.decompress)
    return images, _read(folder / f"{prefix}-labels-idx1-ubyte.gz", 8, (count,), gzip.decompress)


def _from_binary(folder: Path, part: str, known: PublicImages) -> Part:
    batches = _CIFAR_BATCHES[part]
    each = known.counts[part] // len(batches)
    rows = np.concatenate([_read(folder / file, 0, (each, 1 + int(np.prod(known.shape))), bytes) for file in batches])
    return rows[:, 1:].reshape(-1, *known.shape), rows[:, 0]


def _from_npz(path: Path, part: str) -> Part:
    try:
        with np.load(path) as stored:
            return stored[f"x_{part}"], stored[f"y_{part}"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _read(path: Path, header: int, shape: tuple[int, ...], unpack: Callable[[bytes], bytes]) -> np.ndarray:
    """Return the bytes of a file after its header."""
    try:
        raw = np.frombuffer(unpack(path.read_bytes()), np.uint8)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    wanted = header + int(np.prod(shape))
    if raw.size != wanted:
        raise InputError(f"{path} holds {raw.size} bytes, not the {wanted} of {shape[0]} entries")
    return raw[header:].reshape(shape).copy()


def _checked(name: str, part: str, images: np.ndarray, labels: np.ndarray, place: str) -> Part:
    """Return images and labels after a check against the published data."""
    known = PUBLIC[name]
    shape = (known.counts[part], *known.shape)
    if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1]:
        raise InputError(
            f"{place} holds {part} images {images.shape} and labels {labels.shape}, expected {shape} of {known.title}"
        )
    wrong = set(labels.tolist()) != set(range(10))
    if part in known.digests:
        wrong |= contents_digest(images, labels) != known.digests[part]
    if part in known.means:
        wrong |= not np.allclose(images.mean((0, 2, 3)) / 255, known.means[part], atol=5e-4)
    if wrong:
        raise InputError(f"{place} does not hold the published {part} images of {known.title}; fetch a fresh copy")
    return images, labels


def contents_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Return the SHA-256 of images with their labels, the same in any order of the images."""
    rows = np.concatenate([images.reshape(len(images), -1), labels[:, None]], 1)
    return hashlib.sha256(b"".join(sorted(row.tobytes() for row in rows))).hexdigest()
