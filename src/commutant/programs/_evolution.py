"""Evolution of a population of programs: search, train with several seeds, select, learn a library, search again."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .._checks import is_real, whole
from .._errors import InputError
from ._dsl import DSL
from ._grammar import Grammar
from ._library import compress
from ._machine import Machine
from ._state_search import Found, search_states
from ._variance import VarianceComponents, variance_components

State = TypeVar("State")
Output = TypeVar("Output")


@dataclass(frozen=True)
class Population(Generic[Output]):
    """Outputs of programs with scores of models that were trained with them.

    Args:
        members: Outputs with their programs.
        scores: Scores by name, each `(members, seeds)`; larger is better.
        dsl: Language with the library that the search used.
        grammar: Grammar that the search used.
    """

    members: tuple[Found[Output], ...]
    scores: Mapping[str, Tensor]
    dsl: DSL
    grammar: Grammar

    def components(self, score: str, covariate: Callable[[Output], float] | None = None) -> VarianceComponents:
        """Return how much programs and seeds contribute to the variance of a score.

        Args:
            score: Name of the score.
            covariate: Number of an output whose effect is removed, such as `lambda graph: graph.elements`.
        """
        try:
            values = None if covariate is None else torch.tensor([float(covariate(m.output)) for m in self.members])
        except (TypeError, ValueError):
            raise InputError("covariate must return a number for each output") from None
        return variance_components(self._score(score), values)

    def correlation(self, first: str, second: str) -> float:
        """Return the correlation of two scores over programs, after the mean over seeds.

        Args:
            first: Name of a score.
            second: Name of another one.
        """
        pair = torch.stack([self._score(name).double().mean(1) for name in (first, second)])
        return float(pair.corrcoef()[0, 1])

    def table(self) -> str:
        """Return one line for each member: mass, scores with their standard errors over seeds, and program."""
        names = list(self.scores)
        lines = ["  ".join(["mass", *(f"{n:>15}" for n in names), "program"])]
        means = {n: s.double().mean(1) for n, s in self.scores.items()}
        for i in (-means[names[0]]).argsort().tolist():
            cells = []
            for n in names:
                seeds = self.scores[n].shape[1]
                error = float(self.scores[n][i].double().std()) / math.sqrt(seeds) if seeds > 1 else math.nan
                cells.append(f"{float(means[n][i]):7.3f} ± {error:5.3f}")
            lines.append("  ".join([f"{self.members[i].mass:4}", *cells, str(self.members[i].program)]))
        return "\n".join(lines)

    def _score(self, name: str) -> Tensor:
        if name not in self.scores:
            raise InputError(f"there is no score {name!r}; known are {', '.join(self.scores)}")
        return self.scores[name]


def evolve(
    machine: Machine[State, Output],
    fit: Callable[[Sequence[Output], int], Mapping[str, Tensor]],
    *,
    select: str,
    population: int = 50,
    keep: int | float = 0.5,
    seeds: int = 3,
    generations: int = 5,
    abstractions: int = 3,
    max_arity: int = 2,
    max_ratio: int | float = math.exp(0.5),
    max_applications: int = 300_000,
) -> list[Population[Output]]:
    """Evolve programs whose outputs make networks better (Whitehouse 2023), with replicated seeds.

    Each generation trains models with all outputs, keeps the best by the mean of a score over seeds, learns library
    functions from their programs, fits the grammar to them, and searches for new outputs with it. The paper selects by
    one seed, which selects lucky seeds; two seeds are the minimum here. An output that was dropped does not come back.

    Args:
        machine: Machine whose outputs are evolved.
        fit: Function from outputs and a number of seeds to scores by name, each `(outputs, seeds)`; larger is better.
            Seed s must mean the same for all outputs.
        select: Name of the score to select by; the paper uses the training accuracy.
        population: Number of outputs of a generation, at least two. The first generations may find fewer.
        keep: Share that survives, between 0 and 1.
        seeds: Number of seeds, at least two.
        generations: Number of generations.
        abstractions: Largest number of new library functions in a generation.
        max_arity: Largest number of arguments of a library function.
        max_ratio: Largest ratio of two weights of the grammar; see `Grammar.fitted`.
        max_applications: Largest number of steps of each search.

    Returns:
        The generations, each with all of its scores.

    Raises:
        InputError: If `fit` returns wrong shapes or NaN, or the search finds fewer than two outputs.
    """
    for name, value, least in (
        ("population", population, 2),
        ("seeds", seeds, 2),
        ("generations", generations, 1),
        ("abstractions", abstractions, 0),
    ):
        whole(name, value, least)
    whole("max_arity", max_arity, 0)
    whole("max_applications", max_applications)
    if not (is_real(keep) and 0 < keep < 1):
        raise InputError(f"keep must be between 0 and 1, got {keep!r}")
    if not (is_real(max_ratio) and max_ratio >= 1):
        raise InputError(f"max_ratio must be a number of at least 1, got {max_ratio!r}")
    if not isinstance(machine, Machine) or not callable(fit):
        raise InputError(f"expected a Machine and a function fit, got {machine!r:.40} and {fit!r:.40}")
    grammar = Grammar(machine.dsl)
    survivors: list[Found[Output]] = []
    history: list[Population[Output]] = []
    tried: set[Hashable] = set()  # outputs that were trained are not proposed again
    for generation in range(generations):
        members = _explored(machine, grammar, survivors, tried, population, max_applications)
        tried |= {machine.key(m.output) for m in members}
        scores = _checked(fit([m.output for m in members], seeds), select, len(members), seeds)
        history.append(Population(tuple(members), scores, grammar.dsl, grammar))
        best = (-scores[select].double().mean(1)).argsort(stable=True)
        survivors = [members[i] for i in best[: max(2, round(keep * len(members)))].tolist()]
        if generation < generations - 1:
            programs = [grammar.dsl.program(m.program.term) for m in survivors]
            if abstractions:
                learnt = compress(programs, abstractions, max_arity=max_arity)
                plain = Grammar(learnt.dsl)
                programs = [plain.derivable(p) for p in learnt.programs]
                grammar = plain
            grammar = Grammar.fitted(programs, dsl=grammar.dsl, max_ratio=max_ratio)
            costs = [grammar.cost(p) for p in programs]
            survivors = [
                Found(m.output, p, cost, m.applications) for m, p, cost in zip(survivors, programs, costs, strict=True)
            ]
    return history


def _explored(
    machine: Machine[State, Output],
    grammar: Grammar,
    survivors: list[Found[Output]],
    tried: set[Hashable],
    population: int,
    limit: int,
) -> list[Found[Output]]:
    members = list(survivors)
    for found in search_states(machine, grammar, max_applications=limit):
        if len(members) >= population:
            break
        if machine.key(found.output) not in tried:
            members.append(found)
    if len(members) < 2:
        raise InputError(
            f"the search found {len(members)} outputs in {limit} steps, expected at least 2; raise max_applications"
        )
    return members


def _checked(scores: Any, select: str, members: int, seeds: int) -> dict[str, Tensor]:
    if not isinstance(scores, Mapping) or select not in scores or not all(isinstance(n, str) for n in scores):
        given = ", ".join(map(str, scores)) if isinstance(scores, Mapping) else type(scores).__name__
        raise InputError(f"fit must return scores by name, with {select!r} among them, got {given}")
    out = {}
    for name, values in scores.items():
        try:
            values = torch.as_tensor(values).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"score {name!r} must be a tensor (outputs, seeds), got {values!r:.40}") from None
        fits = values.shape == (members, seeds) and not values.is_complex()
        if not fits or not values.isfinite().all():
            raise InputError(
                f"score {name!r} must be finite real numbers (outputs, seeds) = {(members, seeds)}, got "
                f"{tuple(values.shape)}, {values.dtype} or NaN"
            )
        out[name] = values
    return out
