"""Matching by the loss of the merged network, with straight-through estimators."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .._checks import check_generator, one_of, positive
from .._errors import InputError
from ..algebra import linear_assignment, sinkhorn
from ..parameters import Permutation, PermutationSpec
from ._constants import constants_of
from ._given import State, batches_of, check_callable, check_spec, number, state_of
from ._matching import weight_matching
from ._merging import same_entries
from ._soft import apply_softly

_BARRED = 50  # penalty, in units of the temperature, of pairs of units with different constants
Loss = Callable[[nn.Module, Any], Tensor]


def ste_matching(
    spec: PermutationSpec,
    target: nn.Module,
    source: nn.Module | State,
    batches: Iterable[Any],
    loss: Loss,
    *,
    projection: Literal["lap", "sinkhorn"] = "lap",
    learning_rate: float | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Permutation:
    """Return the permutation of `source` for which the mean of both networks had the lowest loss during training.

    With `"lap"` (Git Re-Basin, 2023) a shadow network is trained, which starts at the target. At each step the source
    is matched to the shadow by weights. The loss is evaluated at the mean of target and matched source, and its
    gradient is applied to the shadow (straight-through). With `"sinkhorn"` (Pena et al., CVPR 2023) scores for each
    group, made doubly stochastic, are trained the same way, and their best assignment is used. The scores start at
    random, far from the result of weight matching.

    Args:
        spec: Spec of both networks.
        target: Module; not modified.
        source: Module or state dict; not modified.
        batches: Batches of training data; one step for each.
        loss: Function from a module and a batch to a scalar.
        projection: Parametrization of the permutations: `"lap"` or `"sinkhorn"`.
        learning_rate: Learning rate of Adam; 0.001 for `"lap"` and 0.1 for `"sinkhorn"` by default.
        temperature: Temperature of `"sinkhorn"`.
        generator: Random generator of the scores; None means a fixed seed.

    Raises:
        InputError: There is no batch, or the loss is not a finite scalar.
    """
    (found,) = straight_through(
        spec, target, [source], batches, loss,
        projection=projection, learning_rate=learning_rate, temperature=temperature, generator=generator,
    )  # fmt: skip
    return found


def straight_through(
    spec: PermutationSpec,
    target: nn.Module,
    sources: Sequence[nn.Module | State],
    batches: Iterable[Any],
    loss: Loss,
    *,
    projection: Literal["lap", "sinkhorn"] = "lap",
    learning_rate: float | None = None,
    temperature: float = 1.0,
    mixed: bool = False,
    generator: torch.Generator | None = None,
) -> list[Permutation]:
    """Apply `ste_matching` to several sources at once; with `mixed` weights of the mean are drawn for each batch."""
    one_of("projection", projection, ("lap", "sinkhorn"))
    check_spec(spec)
    check_generator(generator)
    check_callable(loss, "loss", "a function of a module and a batch")
    batches = batches_of(batches)
    if not isinstance(target, nn.Module):
        raise InputError(f"target must be a module, because it is run on the batches, got {type(target).__name__}")
    rate = number((1e-3 if projection == "lap" else 0.1) if learning_rate is None else learning_rate, "learning_rate")
    temperature = number(temperature, "temperature")
    positive("learning_rate", rate)
    positive("temperature", temperature)
    given = [state_of(target), *(state_of(source) for source in sources)]
    for state in given:
        spec.check(state)
    base, *states = ({k: s[spec.name_in(s, k)] for k in spec.axes if k not in spec.ties} for s in given)
    generator = generator or torch.Generator().manual_seed(0)
    for i, state in enumerate(states, start=1):
        same_entries(base, state, i)
    base = {key: value.detach() for key, value in base.items()}
    guides = [_Shadow(spec, base, s) if projection == "lap" else _Scores(spec, base, s, temperature, generator)
              for s in states]  # fmt: skip
    optimizer = torch.optim.Adam([p for guide in guides for p in guide.trained], rate)
    measured = _Measured(target, loss)
    lowest, best = float("inf"), [Permutation(spec) for _ in states]
    with torch.enable_grad():
        for batch in batches:
            shares = torch.rand(len(states) + 1, generator=generator) if mixed else torch.ones(len(states) + 1)
            weights = (shares / shares.sum()).tolist()
            moved = [guide.moved() for guide in guides]
            value = measured.at(_mean([base, *moved], weights), batch)
            if (reached := float(value.detach())) < lowest:
                lowest, best = reached, [guide.permutation for guide in guides]
            if not value.requires_grad:
                raise InputError("the loss has no gradient: it must be a differentiable function of the module")
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if lowest == float("inf"):
        raise InputError("no batch was given")
    return best


class _Shadow:
    """Trained point in weight space, projected to the nearest permuted source."""

    def __init__(self, spec: PermutationSpec, base: State, source: State) -> None:
        self.spec, self.source = spec, source
        weights = {k: v for k, v in base.items() if v.is_floating_point() and k not in spec.buffers}
        self.point = {k: v.clone().requires_grad_() for k, v in weights.items()}
        self.trained = list(self.point.values())
        self.permutation = weight_matching(spec, base, source)

    def moved(self) -> dict[str, Tensor]:
        with torch.no_grad():
            point = {k: self.point.get(k, v) for k, v in self.source.items()}
            self.permutation = weight_matching(self.spec, point, self.source, init=self.permutation)
            projected = self.permutation.apply(self.source)
        return {k: v + (self.point[k] - self.point[k].detach()) if k in self.point else v for k, v in projected.items()}


class _Scores:
    """Trained scores, made doubly stochastic by Sinkhorn's iteration; the forward pass uses their best assignment."""

    def __init__(
        self, spec: PermutationSpec, base: State, source: State, temperature: float, generator: torch.Generator | None
    ) -> None:
        self.spec, self.source, self.temperature = spec, source, temperature
        self.scores = {
            g: torch.randn(*spec.shape(g), n, generator=generator).requires_grad_() for g, n in spec.sizes.items()
        }
        self.trained = list(self.scores.values())
        self.permutation = Permutation(spec)
        constants = constants_of(spec, base, source)
        self.barred = {g: -_BARRED * temperature * (~same) for g in spec.sizes
                       if (same := constants.same(spec, g)) is not None}  # fmt: skip

    def moved(self) -> dict[str, Tensor]:
        scores = {g: s + self.barred.get(g, 0) for g, s in self.scores.items()}
        soft = {g: sinkhorn(s, self.temperature, tolerance=1e-3) for g, s in scores.items()}
        tables = {g: linear_assignment(s.detach(), maximize=True) for g, s in soft.items()}
        self.permutation = Permutation(self.spec, tables)
        hard = {g: torch.nn.functional.one_hot(t, t.shape[-1]).to(soft[g]) for g, t in tables.items()}
        through = {g: hard[g] + soft[g] - soft[g].detach() for g in soft}
        return {
            k: self.permutation.apply_to(k, v)
            if k in self.spec.buffers or not v.is_floating_point()
            else apply_softly(self.spec, through, self.spec.axes[k], v)
            for k, v in self.source.items()
        }


class _Measured(nn.Module):
    """Loss of a network as a function of its parameters; batch norm uses the batch, dropout is off."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = copy.deepcopy(network), loss
        for module in self.network.modules():  # eval() may merge adapters into weights
            module.training = isinstance(module, nn.modules.batchnorm._BatchNorm)

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.network, batch)

    def at(self, state: State, batch: Any) -> Tensor:
        found = functional_call(self, {f"network.{k}": v for k, v in state.items()}, (batch,))
        if not (isinstance(found, Tensor) and found.dim() == 0 and bool(found.isfinite())):
            raise InputError(f"the loss must be a finite scalar tensor, got {found}")
        return found


def _mean(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean, with gradients; entries that are not real are copied from the first network."""
    found = {}
    for key, first in states[0].items():
        parts = [w * s[key] for w, s in zip(weights, states, strict=True)] if first.is_floating_point() else [first]
        found[key] = torch.stack(parts).sum(0)
    return found
