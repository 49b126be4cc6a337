"""Moving glyphs: they follow the flows of the library's own action, and bad input is named."""

import gzip
from dataclasses import replace

import pytest
import torch

from commutant import InputError
from commutant.data import Glyphs, digit_glyphs, flowing_glyphs, mnist_glyphs
from commutant.data._images import PUBLIC
from commutant.sequences import TranslationFlow, flow_transform

pytest.importorskip("sklearn")


def draw(**options):
    return flowing_glyphs(torch.Generator().manual_seed(3), 4, digit_glyphs("train"), size=12, frames=6, **options)


def test_frames_are_moved_by_the_flow_of_their_velocity():
    rest, moving = draw(velocity=torch.tensor([0, 0])), draw(velocity=torch.tensor([2, -1]))
    assert torch.equal(rest, rest[:, :1].expand_as(rest))
    assert torch.equal(moving, flow_transform(rest, TranslationFlow.grid(0), [2, -1]))


def test_values_speeds_and_parts():
    frames = draw(speed=1, each=3)
    assert frames.shape == (4, 6, 1, 12, 12)
    assert frames.min() == 0
    assert frames.max() <= 1
    assert len(digit_glyphs("train")) + len(digit_glyphs("test")) == 1797
    assert torch.equal(draw(speed=1), draw(speed=1))


def test_mnist_is_read_from_its_own_files_and_damage_is_named(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    images = torch.randint(0, 256, (10_000, 784), dtype=torch.uint8)
    for prefix in ("train", "t10k"):
        raw = bytes(16) + images.numpy().tobytes()
        (tmp_path / "mnist" / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw, 1))
        labels = bytes(i % 10 for i in range(60_000 if prefix == "train" else 10_000))
        (tmp_path / "mnist" / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels, 1))
    monkeypatch.setitem(PUBLIC, "mnist", replace(PUBLIC["mnist"], digests={}))
    glyphs = mnist_glyphs("test", str(tmp_path))
    assert torch.equal(glyphs.images, images.view(-1, 28, 28).float() / 255)
    with pytest.raises(InputError, match="not the 47040016 of 60000 entries"):
        mnist_glyphs("train", str(tmp_path))
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is damaged"):
        mnist_glyphs("test", str(tmp_path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: flowing_glyphs(torch.Generator(), 2, digit_glyphs("train"), size=7, frames=3, speed=1), "size=7"),
        (lambda: draw(), "one of speed .* and velocity"),
        (lambda: draw(speed=1, velocity=torch.tensor([0, 1])), "one of speed .* and velocity"),
        (lambda: digit_glyphs("all"), "'all'"),
        (lambda: mnist_glyphs("train", "/nowhere"), "/nowhere"),
        (lambda: draw(speed=-1), "speed"),
        (lambda: draw(velocity=torch.tensor([0.5, 1])), "two whole numbers"),
        (lambda: mnist_glyphs("valid"), "'valid'"),
        (lambda: flowing_glyphs(torch.Generator(), 2, Glyphs(torch.rand(0, 8, 8), ""), size=9, frames=3, speed=1), "0"),
    ],
)
def test_errors(make, said, unchecked):
    with pytest.raises(InputError, match=said):
        make()
