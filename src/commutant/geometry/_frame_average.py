"""Frame averaging: any network made exactly invariant or equivariant, by the mean over a few poses of its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..laws import (
    BatchIndependence,
    Draw,
    Equivariance,
    Euclidean,
    GradientEquivariance,
    Invariance,
    Law,
    Reflection,
    Rotation,
    SetPermutation,
    breaks,
    obeys,
)
from ._arguments import module_given
from ._averaging import Averaging, Frames

_SINGLE = {torch.float32: 1e-2}  # as for the frames themselves


def _wrapped(law: Callable[[], Law], outputs: str = "scalars", group: str = "E(3)", few: int | None = None):  # type: ignore[no-untyped-def]
    """A law of a network of points and its average: one number, a point or a vector for each cloud or point."""

    def case(draw: Draw):  # type: ignore[no-untyped-def]
        width = 3 if outputs == "vectors" else 9 if outputs == "points" else 4
        net = draw.module(lambda: _Plain(width))
        average = FrameAverage(net, group, outputs=outputs, samples=few)
        return law(), average.train(few is not None), draw.normal(3, draw.size + 3, 3)

    return case


class _Plain(nn.Module):
    """A network of points with no symmetry but that of sets."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 16), nn.Linear(32, width)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x))
        h = self.outer(torch.cat([h, h.mean(-2, keepdim=True).expand_as(h)], -1)).cumsum(-1).sin()
        return h.mean(-2) if h.shape[-1] == 4 else h.unflatten(-1, (-1, 3))[..., 0, :]


@obeys("invariance", _wrapped(lambda: Invariance(Euclidean(3) * SetPermutation(1))), tolerance=_SINGLE)
@obeys("equivariance of points", _wrapped(lambda: Equivariance(Euclidean(3)), "points"), tolerance=_SINGLE)
@obeys(
    "equivariance of vectors",
    _wrapped(lambda: Equivariance(Euclidean(3, reflect=False), Euclidean(3).on_vectors), "vectors", "SE(3)"),
    tolerance=_SINGLE,
)
@obeys("gradients turn too", _wrapped(lambda: GradientEquivariance(Euclidean(3))), tolerance={torch.float32: 0.1})
@obeys("batch independence", _wrapped(BatchIndependence), tolerance=_SINGLE)
@breaks("a frame drawn at random in place of all", _wrapped(lambda: Invariance(Rotation(3)), few=1))
@breaks("mirror images of a proper group", _wrapped(lambda: Invariance(Reflection(3)), group="SE(3)"))
class FrameAverage(nn.Module):
    """A network made exactly invariant or equivariant under a group of motions of space.

    `mean over g in F(X) of g net(g^{-1} X)`, where the frame F(X) holds a few elements of the group that move with the
    input. Called as the network is. Every argument answers to the group in its own way, by its *kind*:

    | kind | under x -> R x + t |
    | --- | --- |
    | `points` | R x + t |
    | `vectors` (`displacements`: also scaled with the cloud) | R x |
    | `pseudovectors` | det(R) R x |
    | `tensors` | R x R^T |
    | `scalars` | x, one row a point or a cloud |
    | `batch`, `mask`, `edges`, `edge scalars` | x: the layout, as in PyG |
    | `shared` | x, the same for all clouds |

    Whether a tensor has a row for each point or for each cloud is read from its shape. `"point scalars"`,
    `"cloud vectors"` and so on say it. They are needed where both are as many and some cloud has no points.

    Gradients flow through the choice of the frame, so that forces of an invariant energy are exact and free of torque.
    Puny et al., "Frame Averaging for Invariant and Equivariant Network Design", ICLR 2022, equations 3 and 4; near
    degenerate clouds the weighted frames of Dym, Lawrence and Siegel, ICML 2024, take over smoothly.

    Clouds that move each by itself, such as a ligand and a pocket, take one average around the other, with the other
    cloud among the `scalars` of each: the product of their groups.

    Train with `samples=1`, evaluate with all frames (`model.eval()`): a step costs as much as one of the bare network,
    which sees each input in many poses and does not overfit one.

    Use it for a backbone that has no symmetry, or only that of sets. A network costs `2^d` evaluations an input under
    E(d), half of that under SE(d); `signs="skew"` brings it down to one nearly always. Where two variances of a cloud
    are within a hundredth of the whole it costs some for every point (`4 n` in E(3)): large round clouds are many of
    them, and want `tuples`, `chunk`, a smaller `blend` or `samples`.

    Args:
        net: any module whose first axis is that of clouds, or of points with `batch`.
        group: `"E(3)"`, `"SE(3)"`, `"O(3)"`, `"SO(3)"` or `"T(3)"`, in any dimension; `"Lorentz(4)"` for momenta.
        inputs: the kind of the first argument, or a mapping from names of the network's arguments to kinds. By
            default the first is `points` where none else is, and names of PyG mean what they mean there (`pos`, `vel`,
            `batch`, `mask`, `edge_index`, and `edge_attr` and other names that begin with `edge_`); other tensors are
            `scalars`. A `Data` or `Batch` of PyG counts as its attributes.
        outputs: the kind of every tensor of the output, or a mapping from its keys or positions to kinds.
        frames: `"pca"`, `"weighted"`, or a function `(points, clouds) -> Frame`.
        signs: of the axes, as in `commutant.algebra.pca_frame`.
        scale: also invariant (`points` and `displacements`: equivariant) under scaling, by this size of the cloud.
        on_degenerate: where axes are not distinct: `"weighted"`, `"error"` or `"warn"`, as there.
        blend: the gaps between variances, as shares of the whole, at which axes are wholly merged and wholly apart.
        samples: frames drawn for each cloud in training; evaluation takes all.
        chunk: frames evaluated at a time.
        tuples: tuples of points that a degenerate cloud takes at most, as in `commutant.algebra.pca_frame`.
        gradient: `"through"` the frame, or `"detach"`, which is faster and gives wrong forces.
        score: a module from the network's output to one number a row; the mean is then weighted by its softmax.

    Shapes:
        As the network's. Points are `(*lead, n, d)`, or `(points, d)` with `batch`. The network sees one leading axis.

    Raises:
        InputError: unknown names and kinds, arguments that do not fit the points, NaN.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> field = FrameAverage(net, "SE(3)", outputs="vectors")
        >>> field(torch.randn(4, 10, 3)).shape
        torch.Size([4, 10, 3])
    """

    def __init__(
        self,
        net: nn.Module,
        group: str = "E(3)",
        *,
        inputs: str | Mapping[str, str] | None = None,
        outputs: str | Mapping[Any, str] = "scalars",
        frames: Frames = "pca",
        signs: str = "all",
        scale: Literal["rms", "max"] | None = None,
        on_degenerate: str = "weighted",
        blend: tuple[float, float] = (1e-3, 1e-2),
        samples: int | None = None,
        chunk: int | None = None,
        tuples: int = 4096,
        gradient: Literal["through", "detach"] = "through",
        score: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.net = module_given(net)
        self.score = None if score is None else module_given(score, "score")
        self.averaging = Averaging(
            _forward_of(net),
            group,
            inputs,
            outputs,
            frames,
            signs,
            scale,
            on_degenerate,
            blend,
            samples,
            chunk,
            gradient,
            tuples,
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output, averaged over frames; arguments as the network takes them, and `batch` or `mask`."""
        return self.averaging(self.net, self.training, self.score, args, kwargs)

    def extra_repr(self) -> str:
        return repr(self.averaging)


def _forward_of(net: nn.Module) -> Callable[..., Any]:
    """What names the arguments: the network within averages of averages."""
    return _forward_of(net.net) if isinstance(net, FrameAverage) else net.forward


def symmetrize_(
    module: nn.Module,
    group: str = "E(3)",
    *,
    inputs: str | Mapping[str, str] | None = None,
    outputs: str | Mapping[Any, str] = "scalars",
    frames: Frames = "pca",
    signs: str = "all",
    scale: Literal["rms", "max"] | None = None,
    on_degenerate: str = "weighted",
    blend: tuple[float, float] = (1e-3, 1e-2),
    samples: int | None = None,
    chunk: int | None = None,
    tuples: int = 4096,
    gradient: Literal["through", "detach"] = "through",
) -> nn.Module:
    """Make a module symmetric in place: its parameters, their names and its class's methods stay.

    For models whose class matters to what is around them (Hugging Face, Lightning): the module's class becomes a
    subclass of its own in which `forward` averages over frames. Arguments as for `FrameAverage`.

    Returns:
        The same module.

    Example:
        >>> net = symmetrize_(nn.Linear(2, 2, bias=False), "SO(2)", outputs="vectors")
        >>> isinstance(net, nn.Linear), list(net.state_dict())
        (True, ['weight'])
    """
    own = type(module_given(module, "module"))
    if isinstance(getattr(own, "averaging", None), Averaging):
        raise InputError(f"{own.__name__} is symmetrized already")
    if "forward" in vars(module):
        raise InputError(
            f"this {own.__name__} has a forward of its own, as hooks give it: symmetrize it before they do"
        )
    averaging = Averaging(
        module.forward,
        group,
        inputs,
        outputs,
        frames,
        signs,
        scale,
        on_degenerate,
        blend,
        samples,
        chunk,
        gradient,
        tuples,
    )
    module.__class__ = _symmetrized(own, averaging)
    return module


def _symmetrized(own: type[nn.Module], averaging: Averaging) -> type[nn.Module]:
    """The subclass of a module's class whose forward averages over frames."""

    @wraps(own.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return averaging(partial(own.forward, self), self.training, None, args, kwargs)

    def reduce(self: nn.Module, _: Any) -> Any:
        return _restored, (own, averaging), self.__dict__

    members = {"forward": forward, "averaging": averaging, "__reduce_ex__": reduce}
    return type(f"Symmetrized{own.__name__}", (own,), members)


def _restored(own: type[nn.Module], averaging: Averaging) -> nn.Module:
    made = _symmetrized(own, averaging)
    return made.__new__(made)
