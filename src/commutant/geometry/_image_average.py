"""Group averaging of networks of images over quarter turns and mirrors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, Copies
from ..laws import Draw, Equivariance, Invariance, SquareSymmetry, obeys
from ._same_dropout import same_dropout


def _of_images(outputs: str):  # type: ignore[no-untyped-def]
    def case(draw: Draw):  # type: ignore[no-untyped-def]
        layers = [nn.Conv2d(2, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2, 3, padding=1), nn.Tanh()]
        head = [nn.Flatten(), nn.Linear(50, 3), nn.Tanh()] if outputs == "scalars" else []
        net = draw.module(lambda: nn.Sequential(*layers, *head))
        action = SquareSymmetry()
        turned = SquareSymmetry(vectors=True)
        law = {
            "scalars": Invariance(action),
            "images": Equivariance(action),
            "vectors": Equivariance(action, turned),
        }[outputs]
        return law, ImageAverage(net, outputs=outputs), draw.normal(2, 2, 5, 5)  # type: ignore[arg-type]

    return case


@obeys("invariance", _of_images("scalars"), tolerance={torch.float32: 1e-3})
@obeys("equivariance of images", _of_images("images"), tolerance={torch.float32: 1e-3})
@obeys("equivariance of fields of vectors", _of_images("vectors"), tolerance={torch.float32: 1e-3})
class ImageAverage(nn.Module):
    """A network of images made exactly invariant or equivariant under quarter turns and mirrors.

    The mean over the whole group, which has at most eight elements: `1/|G| sum_g g net(g^{-1} x)`. For satellite and
    microscope images, where no direction is up.

    Args:
        net: from `(batch, channels, height, width)` to a row for each image.
        group: `"D4"` or `"C4"` for square images; `"D2"`, `"D1"` and `"C2"` for any.
        outputs: `"scalars"`, `"images"` `(batch, ..., height, width)`, or `"vectors"`: images of pairs of channels that
            hold the components along rows and columns (a flow).
        samples: elements drawn in training, the same for a batch; evaluation takes all.
        chunk: elements evaluated at a time.

    Raises:
        InputError: unknown names, images that are not square under quarter turns.

    Example:
        >>> net = ImageAverage(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), "C4")
        >>> x = torch.randn(3, 1, 4, 4)
        >>> bool(torch.allclose(net(x), net(x.rot90(1, (-2, -1))), atol=1e-6))
        True
    """

    def __init__(
        self,
        net: Callable[..., Any],
        group: Literal["C2", "C4", "D1", "D2", "D4"] = "D4",
        outputs: Literal["scalars", "images", "vectors"] = "scalars",
        *,
        samples: int | None = None,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if outputs not in ("scalars", "images", "vectors"):
            raise InputError(f"outputs must be scalars, images or vectors, got {outputs!r}")
        for name, value in (("samples", samples), ("chunk", chunk)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self.net, self.outputs, self.samples, self.chunk = net, outputs, samples, chunk
        self.action = SquareSymmetry(group)
        self.output_action = SquareSymmetry(group, vectors=outputs == "vectors")

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Shaped[Tensor, "batch ..."]:
        """The mean over the group."""
        if x.dim() != 4:
            raise InputError(f"images must be (batch, channels, height, width), got {tuple(x.shape)}")
        elements = self.action.elements
        if self.training and self.samples is not None and self.samples < len(elements):
            elements = [elements[i] for i in torch.randperm(len(elements))[: self.samples].tolist()]
        step = self.chunk or len(elements)
        total: Any = 0.0
        batch = len(x)
        with same_dropout(Clouds((batch,), batch), self.training) as share:
            for start in range(0, len(elements), step):
                part = elements[start : start + step]
                cloud = torch.arange(batch, device=x.device).repeat(len(part))
                share(Copies(cloud, None, Clouds((len(cloud),), len(cloud))), None)
                seen = torch.cat([self.action.act(self.action.inverse(g), x) for g in part])
                out = self.net(seen)
                if not isinstance(out, Tensor) or out.shape[:1] != seen.shape[:1]:
                    raise InputError("the network must return one tensor with a row for each image")
                if self.outputs != "scalars" and out.dim() < 4:
                    raise InputError(f"{self.outputs} must be (batch, channels, height, width), got {tuple(out.shape)}")
                for g, y in zip(part, out.unflatten(0, (len(part), batch)), strict=True):
                    total = total + (y if self.outputs == "scalars" else self.output_action.act(g, y))
        return total / len(elements)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"group={self.action.group}, outputs={self.outputs}"
