"""Images to classify, and loss and accuracy of classifiers."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from ...data import image_classes
from ...evidence import Context

Part: TypeAlias = tuple[Tensor, Tensor]
"""Inputs and classes."""
IMAGES = {
    "digits": "scikit-learn digits, 1297 images to train on and 500 to test on",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10-6k": "CIFAR-10, 5000 images to train on and 1000 to test on",
}
"""Descriptions of data sets of images, by their names in the settings."""


def image_parts(context: Context) -> tuple[Part, Part]:
    """Return the training and test images with their classes, of the data set in the setting `data`, on the device."""
    data = image_classes(context.settings["data"], context.data_dir)
    train, test = ((x.to(context.device), y.to(context.device)) for x, y in (data.train, data.test))
    return train, test


def cross_entropy(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the mean cross-entropy of the logits on a batch of inputs and classes."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def accuracy(model: nn.Module, part: Part) -> float:
    """Return the share of inputs that the model classifies correctly."""
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).sum() for x, y in zip(part[0].split(1000), part[1].split(1000), strict=True)]
    return float(sum(right)) / len(part[1])
