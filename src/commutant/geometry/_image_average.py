"""Group averaging of networks of images over quarter turns and mirrors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, Copies
from ..laws import Draw, Equivariance, Invariance, SquareSymmetry, obeys
from ._arguments import callable_given, each_tensor, whole_given
from ._same_randomness import same_randomness


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
        net: a module or function from `(batch, channels, height, width)` to a tensor with a row for each image, or to a
            tuple or mapping of such tensors, as models of Hugging Face return it.
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
            if value is not None:
                whole_given(name, value)
        self.net, self.outputs, self.samples, self.chunk = callable_given(net), outputs, samples, chunk
        self.action = SquareSymmetry(group)
        self.output_action = SquareSymmetry(group, vectors=outputs == "vectors")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The mean over the group. The images come first or under the only name that is a tensor of four axes.

        Everything else is given to the network as it is.
        """
        place, x = _images(args, kwargs)
        elements = self.action.elements
        if self.training and self.samples is not None and self.samples < len(elements):
            elements = [elements[i] for i in torch.randperm(len(elements))[: self.samples].tolist()]
        step = self.chunk or len(elements)
        total: dict[str, Tensor] = {}
        batch, out = len(x), None
        with same_randomness(Clouds((batch,), batch), self.training and len(elements) > 1) as share:
            for start in range(0, len(elements), step):
                part = elements[start : start + step]
                cloud = torch.arange(batch, device=x.device).repeat(len(part))
                share(Copies(cloud, None, Clouds((len(cloud),), len(cloud))), ())
                seen = torch.cat([self.action.act(self.action.inverse(g), x) for g in part])
                if isinstance(place, int):
                    out = self.net(seen, *args[1:], **kwargs)
                else:
                    out = self.net(*args, **(kwargs | {place: seen}))
                each_tensor(out, partial(self._add, total, part, batch), "the output")
        if not total:
            raise InputError(f"the network must return tensors with a row for each image, got {type(out).__name__}")
        return each_tensor(out, lambda _, name: total[name] / len(elements), "the output")

    def _add(self, total: dict[str, Tensor], part: list[Any], batch: int, out: Tensor, name: str) -> None:
        """Turn a tensor of the output back and add it to its total."""
        if not out.dim() or len(out) != len(part) * batch:
            raise InputError(f"the network must return a row for each image, got {tuple(out.shape)} for {name}")
        if self.outputs != "scalars" and out.dim() < 4:
            raise InputError(f"{self.outputs} must be (batch, channels, height, width), got {tuple(out.shape)}")
        if not (out.is_floating_point() or out.is_complex()):
            raise InputError(f"only real and complex values have a mean over the group, got {out.dtype} for {name}")
        for g, y in zip(part, out.unflatten(0, (len(part), batch)), strict=True):
            turned = y if self.outputs == "scalars" else self.output_action.act(g, y)
            total[name] = total[name] + turned if name in total else turned

    def extra_repr(self) -> str:
        return f"group={self.action.group}, outputs={self.outputs}"


def _images(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int | str, Float[Tensor, "batch channels h w"]]:
    """The images among the arguments, with their place or name."""
    if args:
        if not isinstance(args[0], Tensor) or args[0].dim() != 4:
            shape = tuple(args[0].shape) if isinstance(args[0], Tensor) else type(args[0]).__name__
            raise InputError(f"images must be (batch, channels, height, width), got {shape}")
        return 0, args[0]
    found = [name for name, value in kwargs.items() if isinstance(value, Tensor) and value.dim() == 4]
    if len(found) != 1:
        raise InputError(
            f"images must be (batch, channels, height, width), first or the only such argument, got {len(found)}"
        )
    return found[0], kwargs[found[0]]
