"""Diagnosis of an untrained network from measurements on the network itself, with tested remedies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._checks import whole
from ..._errors import InputError
from ._awake import cut_off, tangent_correlation, without_gradient
from ._findings import Finding, ModuleStatistics, correlation, findings, no_gradient, not_finite
from ._record import Record, gain_into, probe_like, recorded, sent_back, square_gain
from ._remedies import with_tested_remedies


@dataclass(frozen=True)
class Diagnosis:
    """Result of `diagnose`: statistics of all modules, and findings.

    Attributes:
        stages: Statistics of all modules in the order of the forward pass.
        findings: Findings, the worst first; empty for a healthy network.
    """

    stages: tuple[ModuleStatistics, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """True if no finding is severe: gradient descent can train the network, though remarks may remain."""
        return not any(finding.severe for finding in self.findings)

    @property
    def layers(self) -> tuple[ModuleStatistics, ...]:
        """Statistics of the modules that have weights of their own."""
        return tuple(stage for stage in self.stages if stage.share == stage.share and not stage.block)

    def __str__(self) -> str:
        """Return a table of the layers and blocks with the findings below."""
        shown = [s for s in self.stages if s.share == s.share or s.block]
        wide = max([len(s.name) for s in shown] + [5])
        columns = f"{'mean':>9} {'kernel':>9} {'cosine':>7} {'gradient':>9} {'gain':>8} {'share':>9}"
        head = f"{'layer':<{wide}}  {'kind':<14} {columns}"
        lines = [head, "-" * len(head)]
        for s in _shortened(shown):
            if s is None:
                lines.append(f"{'...':<{wide}}")
                continue
            lines.append(
                f"{s.name:<{wide}}  {s.kind[:14]:<14} {s.mean:>9.2e} {s.kernel:>9.2e} {_number(s.correlation, '7.3f')} "
                f"{_number(s.gradient, '9.2e')} {_number(s.gain, '8.3g')} {_number(s.share, '9.2e')}"
            )
        lines.append("")
        for finding in self.findings:
            lines += [f"{finding.what}: {finding.sentence}", f"  -> {finding.remedy}"]
        if not self.findings:
            lines.append("nothing wrong: signals, angles and gradients keep their size through the network")
        return "\n".join(lines)


def diagnose(model: nn.Module, x: Any, *, probes: int = 4, generator: torch.Generator | None = None) -> Diagnosis:
    """Measure how signals, angles and gradients move through an untrained network, and report what is wrong.

    The cost is one forward pass, `probes` backward passes through the whole network, and `probes` between neighboring
    layers. Any module works: linear layers, convolutions, normalization, skips, attention. Use it on a new architecture
    before the first training run. Dropout is off during the pass; the model is left unchanged.

    Args:
        model: Network to examine.
        x: Batch of inputs: a tensor, a tuple of arguments or a mapping of keywords. At least two inputs are needed to
            see whether they remain distinguishable.
        probes: Number of random vectors for each expectation.
        generator: Source of randomness of the probes.

    Raises:
        InputError: For a forward pass that fails, inputs that are empty or not finite, or a model without weights.

    Example:
        >>> layers = [m for _ in range(40) for m in (nn.Linear(64, 64), nn.Tanh())]
        >>> found = diagnose(nn.Sequential(*layers), torch.randn(16, 64))
        >>> [finding.what for finding in found.findings]
        ['inputs look alike', 'gradients vanish']
    """
    whole("probes", probes)
    generator = generator or torch.Generator().manual_seed(0)
    stages, found = _look(model, x, probes, generator)
    found = with_tested_remedies(found, model, x, lambda cured: _look(cured, x, probes, generator)[1])
    return Diagnosis(tuple(stages), tuple(found))


def _look(
    model: nn.Module, x: Any, probes: int, generator: torch.Generator
) -> tuple[list[ModuleStatistics], list[Finding]]:
    """Measure the network without trying remedies."""
    with recorded(model, x) as record:
        if not record.layers:
            raise InputError(f"{type(model).__name__} has no layer with weights to examine")
        broken = next((c for c in record.calls if not bool(torch.isfinite(c.output).all())), None)
        stages = _stages(record, probes, generator)
        if broken is not None or not bool(torch.isfinite(record.output).all()):
            return stages, [not_finite(broken)]
        found = findings(model, record, stages, tangent_correlation(record, generator))
        asleep, count = without_gradient(record, generator), len(record.layers)
    if asleep:
        names = [call.name for call in cut_off(model, x, generator)]
        found = [*([no_gradient(names, count)] if names else []), *found]
    return stages, found


def _stages(record: Record, probes: int, generator: torch.Generator) -> list[ModuleStatistics]:
    calls, batch = record.calls, max(1, len(record.output)) if record.output.ndim else 1
    owned = [[] if c.block else list(c.module.parameters()) for c in calls]
    outputs = [c.output for c in calls]
    parameters = list({id(p): p for own in owned for p in own}.values())
    back = torch.zeros(len(calls), dtype=torch.float64)
    shares = {id(p): 0.0 for p in parameters}
    reached = [False] * len(calls)
    for _ in range(probes):
        found = sent_back(record.output, [*outputs, *parameters], probe_like(record.output, generator))
        for i, grad in enumerate(found[: len(calls)]):
            if grad is not None:
                reached[i] = True
                back[i] += grad.double().square().sum() / batch / probes
        for p, grad in zip(parameters, found[len(calls) :], strict=True):
            shares[id(p)] += 0.0 if grad is None else float(grad.double().square().sum()) / batch / probes
    out, before = [], list(record.inputs)
    for i, call in enumerate(calls):
        z = call.output.detach().double()
        gain, skip = math.nan, 0.0
        if call.block:
            found_gain = None if call.input is None else square_gain(call.output, call.input, probes, generator)
            gain, skip = (math.nan, 0.0) if found_gain is None else found_gain
        elif call.weight is not None:
            into = gain_into(call, before, probes, generator)
            gain = math.nan if into is None else into[0]
        if not call.block and (call.normalizes or call.weight is not None):
            before.append(call.output)
        out.append(
            ModuleStatistics(
                name=call.name,
                kind=type(call.module).__name__,
                block=call.block,
                mean=float(z.mean()),
                variance=float(z.var(correction=0)),
                kernel=float(z.square().mean()),
                correlation=correlation(z),
                gradient=float(back[i]) if reached[i] else math.nan,
                gain=gain,
                skip=skip,
                share=math.fsum(shares[id(p)] for p in owned[i]) if owned[i] else math.nan,
                idle=_idle(call.module, z),
            )
        )
    return out


def _idle(module: nn.Module, z: Tensor) -> float:
    """Return the share of units that are saturated or zero for every input."""
    if isinstance(module, nn.ReLU | nn.ReLU6):
        flat = z == 0
    elif isinstance(module, nn.Tanh):
        flat = z.abs() > 0.99
    elif isinstance(module, nn.Sigmoid):
        flat = (z < 0.01) | (z > 0.99)
    else:
        return 0.0
    return float(flat.flatten(1).all(0).double().mean()) if z.ndim > 1 else float(flat.all())


def _shortened(stages: list[ModuleStatistics], most: int = 40) -> list[ModuleStatistics | None]:
    if len(stages) <= most:
        return list(stages)
    return [*stages[: most // 2], None, *stages[-most // 2 :]]


def _number(x: float, form: str) -> str:
    return f"{x:>{form}}" if x == x else " " * (int(form.split(".")[0]) - 1) + "-"
