"""Experiments of `subset-selection`, far smaller than at any scale."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from commutant import InputError
from commutant.data import ImageClasses, anomalous_sets, image_classes, planted_subsets, training_panels
from commutant.papers.subset_selection import measures

TRAINED = {"width": 8, "samples": 2, "batch_size": 4, "learning_rate": 1e-3, "epochs": 1, "start": 0.25, "noise": 0.4}
TINY = {
    "anomalies": TRAINED | {"sets": [12, 4, 4]},
    "cancellation": TRAINED | {"sets": [12, 4, 4]},
    "growth": TRAINED | {"sets": [8, 4, 2], "sizes": [8, 64]},
    "planted": TRAINED | {"sets": [8, 4, 2], "size": 12, "chosen": 2, "starts": [0.5, 0.1]},
    "mnist": TRAINED | {"data": "padded", "sets": [8, 4, 3]},
    "cifar": TRAINED | {"data": "padded", "sets": [8, 4, 3]},
    "panels": TRAINED | {"data": "wine", "sets": [8, 4, 3], "size": 6, "chosen": 2},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured, monkeypatch):
    digits = image_classes("digits")
    pad = torch.nn.ZeroPad2d(4)  # MNIST and CIFAR-10 need a data folder
    large = ImageClasses(*((pad(x), y) for x, y in (digits.train, digits.test)), "padded digits")
    monkeypatch.setattr(measures, "image_classes", lambda data, _: digits if data == "digits" else large)
    measured("subset-selection", name, TINY[name])


def test_anomalies_are_images_of_other_classes():
    labels = torch.arange(200) % 10
    images = torch.stack([labels.float(), torch.arange(200.0)], 1)  # an image shows its class
    found = anomalous_sets(torch.Generator().manual_seed(0), images, labels, 500, size=9, anomalies=(1, 4))
    shown = found.x[..., 0]
    for row, chosen in zip(shown, found.chosen, strict=True):
        (normal,) = row[~chosen].unique()
        assert (row[chosen] != normal).all()
    sizes = found.chosen.sum(1)
    assert sizes.unique().tolist() == [1, 2, 3, 4]
    assert (found.chosen.float().mean(0) - 2.5 / 9).abs().max() < 0.08  # any position
    assert shown.unique().numel() == 10


def test_planted_points_lie_in_the_other_cluster():
    for shape in ("gaussian", "moons"):
        found = planted_subsets(torch.Generator().manual_seed(0), shape, 200, size=30, chosen=4)
        assert (found.chosen.sum(1) == 4).all()
        if shape == "gaussian":
            side = found.x.sum(2) > 0
            major = side.float().mean(1, keepdim=True) > 0.5
            assert ((side != major) == found.chosen).float().mean() > 0.97
            assert 0.4 < major.float().mean() < 0.6
    points, chosen = (t.flatten(0, 1) for t in (found.x, found.chosen))  # of moons, back on two half circles
    circle = (points - torch.tensor([-1.0, -0.2])) / 2
    outer = (circle.norm(dim=1) - 1).abs() < ((circle - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs()
    odd = outer.reshape(200, 30) != (outer.reshape(200, 30).float().mean(1, keepdim=True) > 0.5)
    assert (odd.flatten() == chosen).float().mean() > 0.85
    moons = planted_subsets(torch.Generator().manual_seed(0), "moons", 50)
    points = moons.x.flatten(0, 1)
    assert points.mean(0).abs().max() < 0.5  # 2 x moons are centered by the shift
    assert points.abs().max() < 4


def test_panels_hold_the_best_subset():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    found, scores = training_panels(torch.Generator().manual_seed(1), x, y, 5, size=6, chosen=2)
    for sets, mask, score in zip(found.x, found.chosen, scores, strict=True):
        reached = []
        rest = torch.tensor([not bool((sets[:, :2] == row).all(1).any()) for row in x])
        for a, b in combinations(range(6), 2):
            nearest = torch.cdist(x[rest], sets[[a, b], :2]).argmin(1)
            reached.append(float((sets[[a, b], 2:].argmax(1)[nearest] == y[rest]).double().mean()))
        torch.testing.assert_close(score, torch.tensor(reached, dtype=torch.float64))
        chosen = tuple(mask.nonzero()[:, 0].tolist())
        assert reached[list(combinations(range(6), 2)).index(chosen)] == max(reached)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, x, y: anomalous_sets(g, x, y, 2, anomalies=(0, 1)), "1 <= smallest <= largest"),
        (lambda g, x, y: anomalous_sets(g, x, y, 2, size=3, anomalies=(1, 3)), "largest < size=3"),
        (lambda g, x, y: anomalous_sets(g, x, y * 0, 2), "at least two classes"),
        (lambda g, x, y: anomalous_sets(g, x, y * 2, 2), "numbered from 0 without a gap"),
        (lambda g, x, y: planted_subsets(g, "spirals", 2), "shape must be one of"),
        (lambda g, x, y: planted_subsets(g, "moons", 2, size=4, chosen=4), "chosen must lie between"),
        (lambda g, x, y: training_panels(g, x, y, 2, size=40), "needs neighbors <= chosen < size"),
        (lambda g, x, y: training_panels(g, x, y, 2, size=25, chosen=12), "subsets are too many"),
    ],
)
def test_wrong_input_is_named(call, message, unchecked):
    x = torch.randn(30, 2)
    with pytest.raises(InputError, match=message):
        call(torch.Generator(), x, torch.arange(30) % 2)
