"""Frame averaging, which makes any network exactly invariant or equivariant by a mean over a few poses of its input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Unpack

import torch
from torch import nn

from .._errors import InputError
from ..laws import (
    BatchIndependence,
    Equivariance,
    Euclidean,
    GradientEquivariance,
    Invariance,
    Reflection,
    Rotation,
    SetPermutation,
    breaks,
    obeys,
)
from ._arguments import module_given
from ._averaging import Averaging
from ._frame_options import FrameKeywords, FrameOptions, list_options
from ._law_cases import SINGLE_PRECISION, average_of_points


@obeys(
    "invariance",
    lambda draw: average_of_points(FrameAverage, draw, Invariance(Euclidean(3) * SetPermutation(1))),
    tolerance=SINGLE_PRECISION,
)
@obeys(
    "equivariance of points",
    lambda draw: average_of_points(FrameAverage, draw, Equivariance(Euclidean(3)), "points"),
    tolerance=SINGLE_PRECISION,
)
@obeys(
    "equivariance of vectors",
    lambda draw: average_of_points(
        FrameAverage, draw, Equivariance(Euclidean(3, reflect=False), Euclidean(3).on_vectors), "vectors", "SE(3)"
    ),
    tolerance=SINGLE_PRECISION,
)
@obeys(
    "gradients turn too",
    lambda draw: average_of_points(FrameAverage, draw, GradientEquivariance(Euclidean(3))),
    tolerance={torch.float32: 0.1},
)
@obeys(
    "batch independence",
    lambda draw: average_of_points(FrameAverage, draw, BatchIndependence()),
    tolerance=SINGLE_PRECISION,
)
@breaks(
    "a frame drawn at random in place of all",
    lambda draw: average_of_points(FrameAverage, draw, Invariance(Rotation(3)), samples=1),
)
@breaks(
    "mirror images of a proper group",
    lambda draw: average_of_points(FrameAverage, draw, Invariance(Reflection(3)), group="SE(3)"),
)
class FrameAverage(nn.Module):
    """Network made exactly invariant or equivariant under a group of motions of space.

    `mean over g in F(X) of g net(g^{-1} X)`, where the frame F(X) holds a few elements of the group that move with the
    input. It is called like the network. The *kind* of an argument says how the group acts on it:

    | kind | under x -> R x + t |
    | --- | --- |
    | `points` | R x + t |
    | `vectors` (`displacements`: also scaled with the cloud) | R x |
    | `pseudovectors` | det(R) R x |
    | `tensors` | R x R^T |
    | `scalars` | x, one row per point or per cloud |
    | `batch`, `mask`, `edges`, `edge scalars` | x: the layout, as in PyG |
    | `shared` | x, the same for all clouds |

    The shape of a tensor says whether it has a row per point or per cloud. Kinds such as `"point scalars"` and
    `"cloud vectors"` say it explicitly. They are needed where there are as many points as clouds and some cloud is
    empty.

    Gradients flow through the choice of the frame, so that forces of an invariant energy are exact and free of torque.
    Near degenerate clouds, the frame changes smoothly to the weighted frames of Dym, Lawrence and Siegel, ICML 2024.
    Puny et al., "Frame Averaging for Invariant and Equivariant Network Design", ICLR 2022, equations 3 and 4.

    Two clouds that move separately, such as a ligand and a pocket, need two nested averages. Each treats the other
    cloud as `scalars`; together they average over the product of the groups.

    Train with `samples=1` and evaluate with all frames (`model.eval()`). A training step then costs as much as for
    the network alone. Over training, the network sees each input in many poses and does not overfit to one.

    Use it for a backbone that has no symmetry, or only that of sets. It costs `2^d` evaluations of the network per
    input under E(d) and half of that under SE(d), but nearly always one with `signs="skew"`. A cloud with two variances
    that differ by less than a hundredth of the total costs a few evaluations per point (`4 n` in E(3)). Limit the cost
    of large symmetric clouds with `tuples`, `chunk`, a smaller `blend` or `samples`.

    Args:
        net: Module whose leading axis indexes clouds, or points with `batch`.
        group: Group of motions: `"E(3)"`, `"SE(3)"`, `"O(3)"`, `"SO(3)"` or `"T(3)"`, in any dimension, or
            `"Lorentz(4)"` for momenta.
        inputs: Kind of the first argument, or a mapping from names of the network's arguments to kinds. By default the
            first argument is `points` if no other is, and names of PyG keep their meaning (`pos`, `vel`, `batch`,
            `mask`, `edge_index`, and names that begin with `edge_`). Other tensors are `scalars`. A `Data` or `Batch`
            of PyG counts as its attributes.
        outputs: Kind of every tensor of the output, or a mapping from its keys or positions to kinds.
        frames: Construction of the frames: `"pca"`, `"weighted"`, or a function `(points, clouds) -> Frame`.
        signs: Rule for the signs of the axes, as in `commutant.algebra.pca_frame`.
        scale: Size by which a cloud is divided, `"rms"`, `"max"` or None. It gives invariance under scaling, and
            equivariance of outputs that are `points` or `displacements`.
        on_degenerate: Treatment of axes that are not distinct: `"weighted"`, `"error"` or `"warn"`, as in
            `commutant.algebra.pca_frame`.
        blend: Gaps between variances, as shares of the total, at which axes are fully merged and fully separate.
        samples: Number of frames drawn per cloud in training; evaluation uses all.
        chunk: Number of frames evaluated at a time.
        tuples: Largest number of tuples of points for a degenerate cloud, as in `commutant.algebra.pca_frame`.
        gradient: Gradient `"through"` the frame, or `"detach"`, which is faster but gives wrong forces.
        score: Module from the network's output to one number per row, whose softmax weights the mean.

    Shapes:
        Same as those of the network, which sees one leading axis. Points are `(*lead, n, d)`, or `(points, d)` with
        `batch`.

    Raises:
        InputError: If a name or kind is unknown, arguments do not match the points, or points are not finite.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> field = FrameAverage(net, "SE(3)", outputs="vectors")
        >>> field(torch.randn(4, 10, 3)).shape
        torch.Size([4, 10, 3])
    """

    @list_options
    def __init__(
        self,
        net: nn.Module,
        group: str = "E(3)",
        *,
        score: nn.Module | None = None,
        **options: Unpack[FrameKeywords],
    ) -> None:
        super().__init__()
        self.net = module_given(net)
        self.score = None if score is None else module_given(score, "score")
        self.averaging = Averaging(_innermost_forward(net), FrameOptions(group, **options))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's output, averaged over frames.

        Args:
            args: Positional arguments of the network.
            kwargs: Keyword arguments of the network, and `batch` or `mask` if the network does not take them.
        """
        return self.averaging(self.net, self.training, self.score, args, kwargs)

    def extra_repr(self) -> str:
        return repr(self.averaging)


def _innermost_forward(net: nn.Module) -> Callable[..., Any]:
    """Return the `forward` of the innermost network, whose signature names the arguments."""
    return _innermost_forward(net.net) if isinstance(net, FrameAverage) else net.forward


@list_options
def symmetrize_(module: nn.Module, group: str = "E(3)", **options: Unpack[FrameKeywords]) -> nn.Module:
    """Make a module symmetric in place; its parameters, their names and the other methods are unchanged.

    Use it for models whose class matters to the code around them (Hugging Face, Lightning). The class of the module
    becomes a subclass whose `forward` averages over frames.

    Args:
        module: Module to change.
        group: Group of motions, as for `FrameAverage`.
        options: Keyword arguments of `FrameAverage`, without `score`.

    Returns:
        The same module.

    Example:
        >>> net = symmetrize_(nn.Linear(2, 2, bias=False), "SO(2)", outputs="vectors")
        >>> isinstance(net, nn.Linear), list(net.state_dict())
        (True, ['weight'])
    """
    own = type(module_given(module, "module"))
    if isinstance(getattr(own, "averaging", None), Averaging):
        raise InputError(f"{own.__name__} is already symmetrized; pass a module that is not")
    if "forward" in vars(module):
        raise InputError(f"this {own.__name__} has its own forward, set by a hook; symmetrize it before adding hooks")
    averaging = Averaging(module.forward, FrameOptions(group, **options))
    module.__class__ = _symmetrized(own, averaging)
    return module


def _symmetrized(own: type[nn.Module], averaging: Averaging) -> type[nn.Module]:
    """Return the subclass of a module's class whose forward averages over frames."""

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
