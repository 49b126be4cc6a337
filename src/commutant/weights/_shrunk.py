"""Result of shrinking a network, and bounds on the change of its function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._merge_path import Site


@dataclass(frozen=True)
class Shrunk:
    """Smaller network, and the merges that made it.

    Attributes:
        module: Smaller network, of the class of the given one.
        clusters: Channels of the given network that each channel stands for, by group.
        parameters: Number of parameters of the smaller network and of the given one.
        bounds: For groups between two linear layers that were merged with `rule="fold"`: largest change of the output
            of the second layer when this group alone is merged. It is a multiple of the norm of the input of the first
            layer, with a one appended for the bias. It holds if only an activation with slopes of at most one lies
            between the layers.
    """

    module: nn.Module = field(repr=False)
    clusters: dict[str, list[list[int]]] = field(repr=False)
    parameters: tuple[int, int]
    bounds: dict[str, float]

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Number of channels after and before, by group."""
        return {g: (len(found), sum(map(len, found))) for g, found in self.clusters.items()}

    @property
    def kept(self) -> float:
        """Fraction of the parameters that is left."""
        return self.parameters[0] / self.parameters[1] if self.parameters[1] else 1.0

    def summary(self) -> str:
        """Return a table of widths, then the share of the parameters that is left."""
        wide = max((len(g) for g in self.clusters), default=5)
        lines = [f"{'group':<{wide}}  {'before':>6}  {'after':>6}"]
        lines += [f"{g:<{wide}}  {before:>6}  {after:>6}" for g, (after, before) in self.widths.items()]
        small, large = self.parameters
        return "\n".join([*lines, f"{small} of {large} parameters are left ({self.kept:.1%})"])


def folding_bounds(
    state: Mapping[str, Tensor],
    groups: Mapping[str, Sequence[Site]],
    clusters: Mapping[str, Sequence[Sequence[int]]],
    shares: Mapping[str, Float[Tensor, " channels"]],
) -> dict[str, float]:
    """Return `sum_k |v_k| |w_k - mean of its cluster|` for groups between two linear layers.

    By the triangle inequality it bounds the change of the output of the second layer.
    """
    found = {}
    for group, sites in groups.items():
        makers = [s for s in sites if not s.reads]
        readers = [s for s in sites if s.reads]
        dims = sorted(state[s.key].dim() for s in makers)
        one_layer = len({s.key.rpartition(".")[0] for s in makers}) == 1
        if not (one_layer and dims in ([2], [1, 2]) and [state[s.key].dim() for s in readers] == [2]):
            continue
        made = torch.cat([s.rows(state[s.key]) for s in makers], 1)
        norms = readers[0].rows(state[readers[0].key]).norm(dim=1)
        mean = torch.empty_like(made)
        for own in clusters[group]:
            mean[list(own)] = (made[list(own)] * shares[group][list(own), None]).sum(0)
        found[group] = float((norms * (made - mean).norm(dim=1)).sum())
    return found
