"""Group averaging of image networks over quarter turns and reflections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ..algebra import Clouds, Copies
from ..laws import SquareSymmetry, obeys
from ._arguments import callable_given, each_tensor
from ._law_cases import average_of_images
from ._same_randomness import same_randomness

_SINGLE_PRECISION = {torch.float32: 1e-3}


@obeys("invariance", lambda draw: average_of_images(ImageAverage, draw, "scalars"), tolerance=_SINGLE_PRECISION)
@obeys(
    "equivariance of images", lambda draw: average_of_images(ImageAverage, draw, "images"), tolerance=_SINGLE_PRECISION
)
@obeys(
    "equivariance of fields of vectors",
    lambda draw: average_of_images(ImageAverage, draw, "vectors"),
    tolerance=_SINGLE_PRECISION,
)
class ImageAverage(nn.Module):
    """Image network made exactly invariant or equivariant under quarter turns and reflections.

    It returns the mean over the whole group, which has at most eight elements: `1/|G| sum_g g net(g^{-1} x)`. Use it
    for satellite and microscope images, which have no preferred direction.

    Args:
        net: Module or function from `(batch, channels, height, width)` to a tensor with a row per image, or to a tuple
            or mapping of such tensors, as models of Hugging Face return.
        group: Group, `"D4"` or `"C4"` for square images, or `"D2"`, `"D1"` or `"C2"` for images of any shape.
        outputs: Kind of the output: `"scalars"`, `"images"` `(batch, ..., height, width)`, or `"vectors"`. Vectors are
            images of pairs of channels that hold the components along rows and columns, such as optical flow.
        samples: Number of group elements drawn in training, the same for a batch; evaluation uses all.
        chunk: Number of group elements evaluated at a time.

    Raises:
        InputError: If a name is unknown, or images are not square under quarter turns.

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
        one_of("outputs", outputs, ("scalars", "images", "vectors"))
        for name, value in (("samples", samples), ("chunk", chunk)):
            if value is not None:
                whole(name, value)
        self.net, self.outputs, self.samples, self.chunk = callable_given(net), outputs, samples, chunk
        self.action = SquareSymmetry(group)
        self.output_action = SquareSymmetry(group, vectors=outputs == "vectors")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the mean over the group.

        Args:
            args: Images `(batch, channels, height, width)`, then further arguments of the network, passed unchanged.
            kwargs: Keyword arguments of the network. Without positional ones, the only tensor of four axes is the
                batch of images.
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
        """Transform one output back for every group element of a part and add it to its total."""
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
    """Return the position or name of the images among the arguments, and the images."""
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
