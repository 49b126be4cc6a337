"""Measured rescaling of any network to criticality: unit gain of every layer, limited growth over residual branches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._checks import whole
from ..._errors import InputError
from ._findings import trend
from ._record import Call, Record, gain_into, probe_like, real_tensor, recorded, sent_back, square_gain

_SKIP = 0.1  # smallest weight of the identity in a residual block
_ROUNDS = 30
_WORSE = 10  # factor that noise and finite width may add to the change of squared gradients
_MANY = 16  # smallest number of inputs for reliable measurements
_FEW = 8  # values of a channel that batch normalization needs: two values always become -1 and 1
_CLOSE = 1.2  # tolerated factor over a block's share of the growth


@dataclass(frozen=True)
class ScaledLayer:
    """Change that `autoscale_` made to one module.

    Attributes:
        module: Name of the module.
        factor: Factor applied to its weights.
        before: Gain $\\chi_\\perp$ before the change; for the end of a branch, the gain of the whole block.
        role: `"layer"`, `"output"` or `"branch"`.
    """

    module: str
    factor: float
    before: float
    role: str


def autoscale_(
    model: nn.Module, x: Any, *, growth: float = math.e, probes: int = 8, generator: torch.Generator | None = None
) -> list[ScaledLayer]:
    """Rescale the weights of a network in place so that gradients keep their size.

    One forward pass scales every linear and convolutional layer to a gain of one, measured by probes. The last layer
    and layers that read inputs are scaled to outputs of mean square one, and biases become zero. Then the ends of
    residual branches are scaled down until squared gradients grow by at most `growth` over all blocks. Embeddings and
    normalization layers keep their parameters, except at the end of a branch.

    Use it before training where `critical_` does not apply: normalization, skips, attention, activations without a
    critical point. Prefer `critical_` for plain networks of GELU or SiLU: their critical point needs biases, and
    without them the size of signals drifts.

    Args:
        model: Network with random weights.
        x: Batch of standardized inputs, as for `diagnose`.
        growth: Largest growth of squared gradients over all residual blocks, above 1.
        probes: Number of random vectors for each gain.
        generator: Source of randomness of the probes.

    Returns:
        Changes in the order of the forward pass, branches last.

    Raises:
        InputError: As `diagnose`, and for a growth of 1 or less, a layer without gain, or a network that rescaling
            would make worse, such as one with undetected skips. The network is then left unchanged.

    Example:
        >>> net = nn.Sequential(*[m for _ in range(40) for m in (nn.Linear(64, 64), nn.Sigmoid())], nn.Linear(64, 1))
        >>> x = torch.randn(32, 64)
        >>> done = autoscale_(net, x)
        >>> from commutant.theory import diagnose
        >>> all(abs(layer.gain - 1) < 0.3 for layer in diagnose(net, x).layers[1:-1])
        True
    """
    whole("probes", probes)
    if not 1 < growth < math.inf:
        raise InputError(f"growth must be finite and above 1, got {growth}")
    generator = generator or torch.Generator().manual_seed(0)
    fixed = _shared_or_frozen(model) if isinstance(model, nn.Module) else set()
    with recorded(model, x) as record:
        _refuse_tiny_batches(record)
        names = [c.name for c in record.layers if _scalable(c) and c.name not in fixed]
        drift, inputs = _drift(record), len(record.output) if record.output.ndim else 1
        if not names:
            raise InputError(f"{type(model).__name__} has no linear or convolutional layer to scale")
    kept = [(p, p.detach().clone()) for p in model.parameters()]
    done: list[ScaledLayer] = []
    try:
        with _scaling(model, set(names), names[-1], probes, generator, done), recorded(model, x):
            pass
        done += _weaken_branches(model, x, growth, probes, generator, fixed)
        with recorded(model, x) as record:
            after = _drift(record)
        if after > max(drift, math.log(growth)) + math.log(_WORSE):
            reason = (
                f"{inputs} inputs may be too few to measure gains, so pass a larger batch"
                if inputs < _MANY
                else "it may have skips that no block of a Sequential or ModuleList contains as a whole"
            )
            raise InputError(
                f"with a gain of one in each layer, squared gradients change by {math.exp(after):.1e} through the "
                f"network, compared with {math.exp(drift):.1e} before: {reason}"
            )
    except BaseException:
        for parameter, value in kept:
            parameter.data.copy_(value)
        raise
    return done


@contextmanager
def _scaling(
    model: nn.Module, names: set[str], last: str, probes: int, generator: torch.Generator, done: list[ScaledLayer]
) -> Iterator[None]:
    """Make every layer scale its weights in its first call and continue with the rescaled output."""
    before: list[Tensor] = []
    handles = []

    def hook(name: str):  # type: ignore[no-untyped-def]
        def scale(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            if not isinstance(output, Tensor):
                return None
            call = Call(name, module, real_tensor((*given, *named.values())), output, block=False)
            if name in names and call.weight is not None and all(d.module != name for d in done):
                if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
                    bias.data = torch.zeros_like(bias.data)
                call.output = output = module.forward(*given, **named)
                into = gain_into(call, before, probes, generator)
                role, gain = "layer", 1.0
                if name == last or into is None:
                    role, gain = ("output" if name == last else "layer"), _square(output)
                else:
                    gain = into[0]
                factor = gain**-0.5 if gain > 0 and math.isfinite(gain) else math.nan
                if not math.isfinite(factor):
                    raise InputError(
                        f"layer {name} has a gain of {gain:g}, so its weights can't be scaled to a gain of one"
                    )
                call.weight.data = call.weight.data * factor  # earlier parts of the graph keep the old values
                output = module.forward(*given, **named)
                done.append(ScaledLayer(name, factor, gain, role))
            if call.weight is not None or call.normalizes:
                before.append(output)
            return output

        return scale

    for name, module in model.named_modules():
        if not next(module.children(), None):
            handles.append(module.register_forward_hook(hook(name or type(module).__name__), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse_tiny_batches(record: Record) -> None:
    for call in record.calls:
        over_batch = isinstance(call.module, nn.modules.batchnorm._BatchNorm) and call.module.training
        if over_batch and (values := call.output.numel() // call.output.shape[1]) < _FEW:
            raise InputError(
                f"{call.name} normalizes over {values} values of a channel, too few to measure a gain: pass a batch of "
                "at least 8 inputs, or call model.eval()"
            )


def _weaken_branches(
    model: nn.Module, x: Any, growth: float, probes: int, generator: torch.Generator, fixed: set[str]
) -> list[ScaledLayer]:
    """Scale the ends of residual branches until the gain of each block is its share of the growth.

    Ends with shared or frozen parameters are left unchanged.
    """
    factors: dict[str, float] = {}
    first: dict[str, float] = {}
    for _ in range(_ROUNDS):
        changed = False
        with recorded(model, x) as record:
            gains = [(c, _gain_of_block(c, probes, generator)) for c in record.calls if c.block]
            blocks = [(c, *found) for c, found in gains if found is not None and found[1] > _SKIP]
            scales: list[tuple[nn.Module, float]] = []
            for block, gain, skip in blocks:
                # the identity passes at most this much, despite the noise of the probes
                straight, target = min(skip, 1.0) ** 2, growth ** (1 / len(blocks))
                if gain - 1 <= _CLOSE * (target - 1):
                    continue
                factor = math.sqrt((target - straight) / (gain - straight))
                for end in _ends(record, block, generator):
                    if end.name in fixed:
                        continue
                    scales.append((end.module, factor))
                    factors[end.name] = factors.get(end.name, 1.0) * factor
                    first.setdefault(end.name, gain)
                    changed = True
        with torch.no_grad():
            for module, factor in scales:
                for parameter in module.parameters(recurse=False):
                    parameter.mul_(factor)
        if not changed:
            break
    return [ScaledLayer(name, factor, first[name], "branch") for name, factor in factors.items()]


def _gain_of_block(call: Call, probes: int, generator: torch.Generator) -> tuple[float, float] | None:
    if call.input is None or call.input.shape != call.output.shape:
        return None
    return square_gain(call.output, call.input, probes, generator)


def _ends(record: Record, block: Call, generator: torch.Generator) -> list[Call]:
    """Return the calls at the ends of a block's branches, whose output reaches the block's output by an identity."""
    inside = {id(m) for m in block.module.modules()}
    ends: list[Call] = []
    for call in reversed([c for c in record.calls if id(c.module) in inside and not c.block]):
        if call.output.shape != block.output.shape or not next(call.module.parameters(recurse=False), None) is not None:
            continue
        straight = square_gain(block.output, call.output, 2, generator)
        if straight is None or straight[1] < _SKIP:
            continue
        # a convolution before the normalization that ends the branch reaches it, too, but can't change its size
        if not any((to := square_gain(e.output, call.output, 2, generator)) and to[1] > _SKIP for e in ends):
            ends.append(call)
    return ends


def _scalable(call: Call) -> bool:
    """Return whether a layer has a nonzero weight of its own; ends of branches may start at zero."""
    weight = call.module._parameters.get("weight")
    others = isinstance(call.module, nn.Embedding | nn.RNNBase | nn.MultiheadAttention) or call.normalizes
    return weight is not None and weight.ndim >= 2 and not others and bool(weight.any())


def _shared_or_frozen(model: nn.Module) -> set[str]:
    """Return the modules that share a weight with another module or have a frozen one."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name or type(module).__name__)
    shared = {name for names in owners.values() if len(names) > 1 for name in names}
    frozen = {
        name or type(m).__name__
        for name, m in model.named_modules()
        if any(not p.requires_grad for p in m.parameters(recurse=False))
    }
    return shared | frozen


def _drift(record: Record) -> float:
    """Return the logarithmic change of squared gradients from the first layer to the last, by a linear trend."""
    layers, generator = [c.output for c in record.layers], torch.Generator().manual_seed(0)
    total = [0.0] * len(layers)
    for _ in range(max(4, 64 // max(1, len(record.output))) if record.output.ndim else 64):
        back = sent_back(record.output, layers, probe_like(record.output, generator))
        total = [t + (0.0 if g is None else float(g.double().square().sum())) for t, g in zip(total, back, strict=True)]
    logs = [math.log(t) for t in total if t > 0 and math.isfinite(t)]
    return abs(trend(logs)[1]) if len(logs) > 1 else 0.0


def _square(z: Tensor) -> float:
    return float(z.detach().double().square().mean())
