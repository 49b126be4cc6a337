"""Images with class labels: parts, files of the usual formats, damage that is named."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.data import _images as images
from commutant.data import image_classes, images_unavailable

pytest.importorskip("sklearn")


def test_digits_are_the_same_at_every_call():
    first, again = image_classes(), image_classes("digits")
    assert [len(part[1]) for part in (first.train, first.test)] == [1297, 500]
    assert torch.equal(first.test[0], again.test[0])
    assert first.train[0].min() == 0
    assert first.train[0].max() == 1
    assert sorted(first.train[1].unique().tolist()) == list(range(10))


def test_files_of_the_usual_formats(tmp_path, monkeypatch):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    stored = {}
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        x, y = rng.integers(0, 256, (count, 784), np.uint8), rng.integers(0, 10, count, np.uint8)
        stored[prefix] = x, y
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + x.tobytes(), 0))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + y.tobytes(), 1))
    with pytest.raises(InputError, match="does not hold the published train images of Fashion-MNIST"):
        image_classes("fashion-mnist", str(tmp_path))
    digests = {part: images.contents_digest(*stored[prefix]) for part, prefix in (("train", "train"), ("test", "t10k"))}
    monkeypatch.setitem(images.PUBLIC, "fashion-mnist", replace(images.PUBLIC["fashion-mnist"], digests=digests))
    data = image_classes("fashion-mnist", str(tmp_path))
    assert data.train[0].shape == (60_000, 1, 28, 28)
    assert torch.equal(data.test[0].flatten(1), torch.from_numpy(stored["t10k"][0]).float() / 255)
    assert torch.equal(data.test[1], torch.from_numpy(stored["t10k"][1]).long())
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(9)))
    with pytest.raises(InputError, match="holds 9 bytes, not the 10008 of 10000 entries"):
        image_classes("fashion-mnist", str(tmp_path))
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte.gz" in images_unavailable("fashion-mnist", str(tmp_path))
    small = tmp_path / "cifar10-6k"
    small.mkdir()
    parts = {f"{k}_{p}": rng.integers(0, 10, s, np.uint8) for p in ("train", "test")
             for k, s in (("x", (20, 3, 32, 32)), ("y", (20,)))}  # fmt: skip
    np.savez(small / "cifar10_6k.npz", **parts)
    data = image_classes("cifar10-6k", str(tmp_path))
    assert data.test[0].shape == (20, 3, 32, 32)
    (small / "cifar10_6k.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is damaged"):
        image_classes("cifar10-6k", str(tmp_path))


def test_what_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("COMMUTANT_DATA", raising=False)
    with pytest.raises(InputError, match="must be one of digits, mnist"):
        image_classes("imagenet")
    with pytest.raises(InputError, match="COMMUTANT_DATA"):
        image_classes("cifar10-6k", None)
