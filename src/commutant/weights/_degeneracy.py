"""Directions of parameters that do not change what a network computes, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import positive
from .._errors import InputError
from ..parameters import evaluating
from ._activation_moments import counted, slopes_of
from ._given import batches_of, check_module
from ._sections import Places, Trace, chunks, pulled_back
from ._statistics import call

_MOST_PARAMETERS = 5000


def behavioral_spectrum(
    model: nn.Module, batches: Iterable[Any], outputs: Callable[[Any], Tensor] | None = None
) -> Float[Tensor, " parameters"]:
    r"""Return the eigenvalues of the Hessian of the behavioral loss, in falling order.

    The behavioral loss $\frac{1}{n} \sum_x \|f_\theta(x) - f_{\theta^*}(x)\|^2$ measures how far a network moves from
    what it computes now. Its Hessian is $\frac{2}{n} \sum_x J_x^T J_x$, exactly. Directions of eigenvalue zero change
    nothing on the data. It is computed in float64 from a triangular factor, so that eigenvalues down to 1e-20 of the
    largest one are right, in memory quadratic in the number of parameters.

    Args:
        model: Network of at most 5000 parameters.
        batches: Batches of data.
        outputs: Function that selects a tensor from the output of the model; by default the tensor, or its `logits`.

    Raises:
        InputError: If the network is too large, or there is no data.
    """
    check_module(model, "model")
    places = Places(model, None, outputs)
    parameters = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in parameters)
    if not 0 < size <= _MOST_PARAMETERS:
        raise InputError(f"the spectrum takes 1 to {_MOST_PARAMETERS} parameters that require gradients, got {size}")
    factor = torch.zeros(0, size, dtype=torch.float64)
    count = 0
    for batch in batches_of(batches):
        with evaluating(model), torch.enable_grad():
            out = places.selected(call(model, batch))
            flat = out.reshape(-1)
            options: dict[str, Any] = {"is_grads_batched": True, "allow_unused": True, "retain_graph": True}
            grads = torch.autograd.grad(flat, parameters, torch.eye(len(flat)).to(flat), **options)
        rows = torch.cat(
            [
                torch.zeros(len(flat), p.numel(), dtype=torch.float64) if g is None else g.flatten(1).double().cpu()
                for g, p in zip(grads, parameters, strict=True)
            ],
            1,
        )
        factor = torch.linalg.qr(torch.cat([factor, rows]), mode="r").R
        count += len(out)
    if not count:
        raise InputError("no batch was given")
    values = torch.linalg.svdvals(factor).square() * 2 / count
    return torch.cat([values, values.new_zeros(size - len(values))])


def effective_parameters(
    model: nn.Module,
    batches: Iterable[Any],
    resolution: int | float | None = None,
    outputs: Callable[[Any], Tensor] | None = None,
) -> int:
    r"""Return the number of directions of parameters that change what a network computes on data.

    It is the rank of the Hessian of the behavioral loss, twice the learning coefficient where the loss is quadratic.
    With a resolution $\epsilon$, directions whose unit step moves the loss by less than it do not count.

    Args:
        model: Network of at most 5000 parameters.
        batches: Batches of data.
        resolution: Smallest behavioral loss that counts; by default zero up to rounding.
        outputs: Function that selects a tensor from the output of the model, as for `behavioral_spectrum`.
    """
    if resolution is not None:
        positive("resolution", resolution)
    spectrum = behavioral_spectrum(model, batches, outputs)
    least = 1e-20 * float(spectrum[0]) if resolution is None else 2 * float(resolution)
    return int((spectrum > least).sum())


@dataclass(frozen=True)
class SectionDegeneracy:
    """Degeneracy of a linear layer and its activation.

    Attributes:
        name: Name of the layer.
        parameters: Number of its parameters.
        activations: Dimensions that its inputs span, with the constant of the bias, and how many they could.
        gradients: Dimensions that the derivatives of the outputs by its units span, and how many they could.
        gates: Units whose derivative is the same on all data, where they differ between data: with a piecewise linear
            activation such a group can be changed by any invertible map.
        linear: Units that act linearly on all data.
        free: Number of directions of parameters that change nothing: those of dependent inputs and gradients, and
            k^2 for a group of k independent units, k^2 + k for linear units with biases.
    """

    name: str
    parameters: int
    activations: tuple[int, int]
    gradients: tuple[int, int]
    gates: tuple[tuple[int, ...], ...]
    linear: tuple[int, ...]
    free: int


@dataclass(frozen=True)
class DegeneracyReport:
    """Degeneracies of the layers of a network; `print` shows a table.

    Attributes:
        sections: Degeneracy of each layer.
    """

    sections: tuple[SectionDegeneracy, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of the layers."""
        return sum(s.parameters for s in self.sections)

    @property
    def effective(self) -> int:
        """Number of parameters less the free directions: exact for generic networks, at most this for others."""
        return self.parameters - sum(s.free for s in self.sections)

    def __str__(self) -> str:
        width = max(5, *(len(s.name) for s in self.sections))
        lines = [f"{'layer':{width}}  parameters  inputs span  gradients span  equal gates  linear  free"]
        for s in self.sections:
            equal = ", ".join(str(len(g)) for g in s.gates if len(g) > 1) or "none"
            spans = [f"{a} of {b}" for a, b in (s.activations, s.gradients)]
            lines.append(
                f"{s.name:{width}}  {s.parameters:10}  {spans[0]:>11}  {spans[1]:>14}  {equal:>11}  {len(s.linear):6}  "
                f"{s.free:4}"
            )
        return "\n".join([*lines, f"{self.effective} of {self.parameters} parameters have an effect on the data"])


def degeneracy_report(
    model: nn.Module,
    sections: Sequence[str],
    batches: Iterable[Any],
    outputs: Callable[[Any], Tensor] | None = None,
    rtol: int | float = 1e-10,
) -> DegeneracyReport:
    """Return how many directions of the parameters of linear layers change nothing on data, and why.

    Three reasons are counted: inputs of a layer that are linearly dependent, gradients that reach it and are, and
    units of a piecewise linear activation that switch on the same data. For generic networks the count is exact and
    agrees with `effective_parameters`, for any size. A unit that is on for fewer samples than it has inputs has more
    free directions than are counted here.

    Args:
        model: Network.
        sections: Names of its linear layers in the order in which they run.
        batches: Batches of data; the more, the fewer units agree by chance.
        outputs: Function that selects a tensor from the output of the model; by default the tensor, or its `logits`.
        rtol: Smallest part of the largest singular value that counts as more than zero.

    Example:
        >>> model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
        >>> report = degeneracy_report(model, ["0", "2"], [torch.randn(300, 6)])
        >>> report.parameters, report.effective
        (103, 93)
    """
    check_module(model, "model")
    positive("rtol", rtol)
    places = Places(model, sections, outputs)
    for name, module in zip(places.names, places.modules, strict=True):
        if type(module) is not nn.Linear:
            raise InputError(f"sections must be linear layers, got {type(module).__name__} {name!r}")
    seen = [_Seen() for _ in places.names]
    empty = True
    for batch in batches_of(batches):
        trace, empty = places.trace(batch, cut=False), False
        for place, found in enumerate(seen):
            found.add(places, trace, place)
    if empty:
        raise InputError("no batch was given")
    after = [s.inputs for s in seen[1:]] + [None]
    return DegeneracyReport(
        tuple(s.described(places, i, a, float(rtol)) for i, (s, a) in enumerate(zip(seen, after, strict=True)))
    )


class _Seen:
    """Record of one layer on data: triangular factors of inputs and gradients, and derivatives of its units."""

    def __init__(self) -> None:
        self.inputs = self.gradients = torch.zeros(0)
        self.slopes: list[Tensor] = []
        self.homogeneous = True

    def add(self, places: Places, trace: Trace, place: int) -> None:
        module, read, product = places.modules[place], trace.reads[place], trace.products[place]
        rows = counted(places.rows(place, read), trace.valid).detach().double().cpu()
        if module.bias is not None:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        self.inputs = _factor(self.inputs, rows)
        output = trace.arrivals[-1]
        assert product is not None
        width = output[0].numel()
        for part in chunks(width, output.numel() + product.numel()):
            weights = torch.eye(width)[part.start : part.stop, None].expand(-1, len(output), -1).to(output)
            (found,) = pulled_back(output, [product], weights.reshape(-1, *output.shape))
            rows = torch.cat([counted(g[..., None, :], trace.valid) for g in found])
            self.gradients = _factor(self.gradients, rows.double().cpu())
        slopes = slopes_of(trace, place)
        if slopes is None or place + 1 == len(places.names):
            self.homogeneous = False
        else:
            arrival = counted(trace.arrivals[place + 1][..., None, :], trace.valid)
            linear = slopes * counted(product[..., None, :], trace.valid)
            self.homogeneous &= bool(torch.allclose(arrival, linear, rtol=1e-5, atol=1e-8))
            self.slopes.append(slopes.detach().cpu())

    def described(self, places: Places, place: int, after: Tensor | None, rtol: float) -> SectionDegeneracy:
        module: Any = places.modules[place]
        inputs, units = module.in_features + (module.bias is not None), module.out_features
        spans = [_rank(f, rtol) for f in (self.inputs, self.gradients)]
        gates: list[tuple[int, ...]] = []
        linear: tuple[int, ...] = ()
        shared = 0
        if self.homogeneous and self.slopes and after is not None:
            slopes = torch.cat(self.slopes)
            kinds, group = slopes.mT.unique(dim=0, return_inverse=True)
            for i, kind in enumerate(kinds):
                members = tuple((group == i).nonzero().flatten().tolist())
                always = bool((kind == kind[0]).all())
                if always:
                    linear += members if float(kind[0]) else ()
                else:
                    gates.append(members)
                constant = always and module.bias is not None and after.shape[1] > units
                columns = after[:, [*members, units] if constant else list(members)]
                shared += _rank(columns, rtol) * _rank(self.gradients[:, list(members)], rtol)
        free = inputs * units - spans[0] * spans[1] + shared
        return SectionDegeneracy(
            places.names[place], inputs * units, (spans[0], inputs), (spans[1], units), tuple(gates), linear, free
        )


def _factor(before: Tensor, rows: Tensor) -> Tensor:
    """Return the triangular factor of more rows."""
    return torch.linalg.qr(torch.cat([before.reshape(-1, rows.shape[1]).to(rows), rows]), mode="r").R


def _rank(factor: Tensor, rtol: float) -> int:
    values = torch.linalg.svdvals(factor)
    return int((values > rtol * values[0]).sum()) if len(values) else 0
