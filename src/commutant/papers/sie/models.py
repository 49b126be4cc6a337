"""Networks of the claims on split representations: a small encoder, predictors and their objectives."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ...geometry import (
    HyperPredictor,
    QuaternionPredictor,
    SIELoss,
    SplitRepresentation,
    vicreg_covariance,
    vicreg_variance,
)

DIM = 128


def encoder(width: int) -> nn.Sequential:
    """Build an encoder of images of 32 pixels to `(batch, 128)`: four convolutions with batch norm.

    Args:
        width: Number of channels of the first convolution.
    """
    layers: list[nn.Module] = []
    channels = 3
    for wide, stride in ((width, 2), (2 * width, 2), (4 * width, 2), (4 * width, 1)):
        layers += [nn.Conv2d(channels, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, DIM))


class MLPPredictor(nn.Module):
    """MLP predictor of `[z, g]`, which can ignore g.

    Args:
        dim: Width of z.
        code: Width of g.
    """

    def __init__(self, dim: int, code: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + code, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, z: Tensor, g: Tensor) -> Tensor:
        """Predict z after the transformation g."""
        return cast(Tensor, self.net(torch.cat([z, g], -1)))


class SelfSupervised(nn.Module):
    """Encoder with the objective of an arm on two views; its forward returns the loss.

    Args:
        arm: Name of the arm.
        width: Number of channels of the first convolution.
    """

    def __init__(self, arm: str, width: int) -> None:
        super().__init__()
        self.arm = arm
        if arm == "vicreg":
            self.backbone = encoder(width)
            block = [nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.ReLU()]
            again = [nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.ReLU()]
            self.projector = nn.Sequential(*block, *again, nn.Linear(DIM, DIM, bias=False))
            return
        self.split = SplitRepresentation(encoder(width), DIM, projector=(DIM, DIM, DIM))
        half = DIM // 2
        self.predictor: nn.Module = {
            "sie": lambda: HyperPredictor(half, 4),
            "bias": lambda: HyperPredictor(half, 4, hyper_bias=True),
            "mlp": lambda: MLPPredictor(half, 4),
            "quaternion": lambda: QuaternionPredictor(half),
        }[arm]()
        self.objective = SIELoss()

    @property
    def encoder(self) -> nn.Module:
        """Module from images to features."""
        return self.backbone if self.arm == "vicreg" else self.split.backbone

    def forward(self, first: Tensor, second: Tensor, code: Tensor) -> Tensor:
        """Return the loss of a batch of pairs of views and the codes of their rotations."""
        if self.arm == "vicreg":
            a, b = (self.projector(self.encoder(x)) for x in (first, second))
            variance = (vicreg_variance(a) + vicreg_variance(b)) / 2
            return 10 * (a - b).square().mean() + 10 * variance + vicreg_covariance(a) + vicreg_covariance(b)
        one, two = self.split(first), self.split(second)
        return cast(Tensor, self.objective(one, two, self.predictor(one.equivariant, code))["total"])
