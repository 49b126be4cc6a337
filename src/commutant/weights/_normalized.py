"""Scales of channels before merging: the scale of their batch norm, or unit norm where a factor passes through."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from ..parameters import Part, PermutationSpec, act_linearly, part_rows, positions_by_group
from ._merge_path import Cells, Rule, Site

_VECTORS = ("weight", "bias", "running_mean", "running_var")


class Normalized:
    """Batch norms of a network, and the pairs of a norm and a layer whose only reader it is.

    A channel z in front of a batch norm may be rescaled: gamma (z - mu) / sigma = gamma (c z - c mu) / (c sigma).
    At the scale c = gamma / sigma the norm only shifts, so that distances between the weights of two channels are
    distances between their outputs.
    """

    def __init__(self, model: nn.Module, spec: PermutationSpec) -> None:
        self.eps: dict[str, float] = {}
        for name, module in model.named_modules():
            key = f"{name}.running_var".removeprefix(".")
            if isinstance(getattr(module, "running_var", None), Tensor) and key in spec.axes:
                self.eps[key] = float(getattr(module, "eps", 0.0))
        self.pairs = [(norm, layer) for norm, layer in spec.batch_norms() if f"{norm}.running_var" in self.eps]
        self.groups = {norm: next(spec.axes[f"{norm}.running_var"][0].groups(), None) for norm, _ in self.pairs}
        self.spec = spec

    def split(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state with standard deviations under the names of variances."""
        return {k: (v + self.eps[k]).sqrt() if k in self.eps else v for k, v in state.items()}

    def join(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state with variances again, the inverse of `split`."""
        return {k: (v.square() - self.eps[k]).clamp(min=0) if k in self.eps else v for k, v in state.items()}

    def rescaled(self, state: Mapping[str, Tensor], only: Mapping[str, Collection[int]]) -> dict[str, Tensor]:
        """Return the state with some channels of each group at the scale that the norms give them."""
        result = dict(state)
        for norm, layer in self.pairs:
            gamma, deviation = (result[f"{norm}.{n}"] for n in ("weight", "running_var"))
            floor = max(1e-6, sqrt(2 * self.eps[f"{norm}.running_var"]))  # keeps the variance, without eps, above 0
            sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma)
            scale = sign * gamma.abs().clamp(min=floor) / deviation
            group = self.groups[norm]
            chosen = torch.zeros(len(scale), dtype=torch.bool)
            if group is not None and only.get(group):
                chosen[self._positions(norm, group)[sorted(only[group])].flatten()] = True
            scale = torch.where(chosen, scale, torch.ones_like(scale))
            for key in (f"{layer}.weight", f"{layer}.bias", f"{norm}.running_mean", f"{norm}.running_var"):
                if key in result:
                    factor = scale.abs() if key.endswith("running_var") else scale
                    result[key] = result[key] * factor.view(-1, *[1] * (result[key].dim() - 1))
            result[f"{norm}.weight"] = gamma * torch.where(scale < 0, -1.0, 1.0).to(gamma)
        return result

    def fused(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state with norms folded into their layers, by which channels are compared."""
        result = dict(state)
        for norm, layer in self.pairs:
            gamma, beta, mean, deviation = (result[f"{norm}.{n}"] for n in _VECTORS)
            scale = gamma / deviation.clamp(min=1e-12)
            bias = result.get(f"{layer}.bias", torch.zeros_like(beta))
            weight = result[f"{layer}.weight"]
            result[f"{layer}.weight"] = weight * scale.view(-1, *[1] * (weight.dim() - 1))
            neutral = (
                torch.ones_like(beta),
                beta + (bias - mean) * scale,
                torch.zeros_like(beta),
                torch.ones_like(beta),
            )
            result |= {f"{norm}.{n}": value for n, value in zip(_VECTORS, neutral, strict=True)}
            if f"{layer}.bias" in result:
                result[f"{layer}.bias"] = torch.zeros_like(bias)
        return result

    def settled(
        self,
        state: Mapping[str, Tensor],
        given: Mapping[str, Tensor],
        rescaled: Mapping[str, Tensor],
        cells: Mapping[str, Cells],
        rule: Rule,
    ) -> dict[str, Tensor]:
        """Return merged parameters with the scale of the given channels and a corrected standard deviation.

        The mean of unequal weights gives a channel that varies less than they did. For isotropic inputs the factor is
        the norm of the mean over the mean of the norms. Without the correction the norm behind it would shrink the
        channel.
        """
        result = dict(state)
        for norm, layer in self.pairs:
            group = self.groups[norm]
            if group is None or group not in cells:
                continue
            key = f"{norm}.running_var"
            own, index = cells[group], self._positions(norm, group)
            vector, rows = Site(key, 0, index, False), Site(f"{layer}.weight", 0, index, False)
            weight = rescaled[rows.key]
            norms = own.gather(vector, weight.flatten(1).norm(dim=1), rule)
            shrunk = own.gather(rows, weight, rule).flatten(1).norm(dim=1) / norms
            scale = own.gather(vector, given[key], rule) / result[key]
            merged = torch.zeros(len(norms), dtype=torch.bool)
            merged[index[own.first[own.of.bincount() > 1]].flatten()] = True
            shrunk, scale = (torch.where(merged & t.isfinite() & (t > 0), t, 1.0) for t in (shrunk, scale))
            for name, factor in ((rows.key, scale), (f"{layer}.bias", scale), (f"{norm}.running_mean", scale),
                                 (key, scale * shrunk)):  # fmt: skip
                if name in result:
                    result[name] = result[name] * factor.view(-1, *[1] * (result[name].dim() - 1))
        return result

    def _positions(self, norm: str, group: str) -> Tensor:
        return positions_by_group(self.spec.axes[f"{norm}.running_var"][0], [group])


class Level:
    """Rescaling of channels to unit norm, for groups with a scaling symmetry.

    The symmetry multiplies the incoming weights of a channel and divides its outgoing weights.
    """

    def __init__(self, spec: PermutationSpec, sites: Mapping[str, Sequence[Site]]) -> None:
        self.spec, self.scales = spec, _scales(spec, sites)

    def __call__(
        self, state: Mapping[str, Tensor], only: Mapping[str, Collection[int]] | None = None
    ) -> dict[str, Tensor]:
        """Rescale incoming weights, of all channels or some, to unit norm where a scaling symmetry allows it."""
        state = dict(state)
        for group, scale in self.scales.items():
            made = [part_rows(self.spec, state[part[0]], part, group)[0] for part, power in scale.items() if power > 0]
            size = torch.cat(made, 1).norm(dim=1)
            chosen = torch.ones_like(size, dtype=torch.bool)
            if only is not None:
                chosen[:] = False
                chosen[sorted(only[group])] = True
            factor = torch.where(chosen & (size > 0), 1 / size.clamp(min=1e-300), 1.0)
            maps = {part: (factor**power)[None] for part, power in scale.items()}
            state = act_linearly(self.spec, state, group, maps)
        return state


def _scales(spec: PermutationSpec, sites: Mapping[str, Sequence[Site]]) -> dict[str, dict[Part, int]]:
    """Return a scaling for each group that multiplies incoming weights and divides all outgoing ones, if it has one."""
    found = {}
    for group, own in sites.items():
        reads = {(site.key, site.axis): site.reads for site in own}
        for scale in sorted(spec.kinds[group].scales, key=len):  # behind a batch norm rather than in front of it
            sign = next(iter(-power if reads[part[:2]] else power for part, power in scale.items()))
            turned = {part: power * (1 if sign > 0 else -1) for part, power in scale.items()}
            fits = all(power == (-1 if reads[part[:2]] else 1) for part, power in turned.items())
            read = {part[:2] for part, power in turned.items() if power < 0}
            if fits and read == {place for place, is_read in reads.items() if is_read}:
                found[group] = turned
                break
    return found
