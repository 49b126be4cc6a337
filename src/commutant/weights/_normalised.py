"""Batch norm and merging: standard deviations in the place of variances, and channels at the scale of their norm."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import sqrt

import torch
from torch import Tensor, nn

from ..parameters import PermutationSpec, positions_by_group


class Normalised:
    """The batch norms of a network, and those of them that alone read what one layer makes.

    A channel z in front of a batch norm may be rescaled: gamma (z - mu) / sigma = gamma (c z - c mu) / (c sigma).
    At the scale c = gamma / sigma the norm only shifts, so that distances between the weights of two channels are
    distances of what they hand on.
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
        """With standard deviations under the names of variances."""
        return {k: (v + self.eps[k]).sqrt() if k in self.eps else v for k, v in state.items()}

    def join(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `split` undoes."""
        return {k: (v.square() - self.eps[k]).clamp(min=0) if k in self.eps else v for k, v in state.items()}

    def rescaled(
        self, state: Mapping[str, Tensor], only: Mapping[str, Collection[int]] | None = None
    ) -> dict[str, Tensor]:
        """At the scale that the norms give the channels: all of them, or some channels of some groups."""
        result = dict(state)
        for norm, layer in self.pairs:
            gamma, deviation = (result[f"{norm}.{n}"] for n in ("weight", "running_var"))
            floor = sqrt(2 * self.eps[f"{norm}.running_var"])  # keeps the variance, without eps, above zero
            sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma)
            scale = sign * gamma.abs().clamp(min=floor) / deviation
            if only is not None:
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

    def _positions(self, norm: str, group: str) -> Tensor:
        return positions_by_group(self.spec.axes[f"{norm}.running_var"][0], [group])
