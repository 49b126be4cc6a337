"""Greedy search, beam search and sampling of pointer sequences, vectorized over sets and hypotheses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .._checks import check_generator, one_of, whole
from .._errors import InputError
from ._pointer_constraints import Constraint
from ._pointer_decoder import PointerDecoder, PointerMemory, allowed_choices, check_constraint

Strategy: TypeAlias = Literal["greedy", "beam", "sample"]


@dataclass(frozen=True, eq=False)
class Decoding:
    """Decoded sequences, with the most probable first.

    Attributes:
        sequences: Indices of elements, -1 from the stop on, `(batch, hypotheses, steps)`.
        log_probs: Log probability of each sequence, its stop included, `(batch, hypotheses)`; minus infinity if there
            are fewer different sequences than hypotheses.
        finished: Whether a sequence ended by itself, and not at the limit of steps, `(batch, hypotheses)`.
    """

    sequences: Tensor
    log_probs: Tensor
    finished: Tensor

    @property
    def best(self) -> Tensor:
        """Most probable sequence of each set, `(batch, steps)`."""
        return self.sequences[:, 0]


@dataclass
class _Hypotheses:
    """State of the search."""

    prefix: Tensor
    score: Tensor
    done: Tensor
    finished: Tensor
    choice: Tensor
    state: tuple[Tensor, Tensor]
    parent: Tensor | None = None
    """Hypothesis of the step before whose state each one goes on from; its own by default."""

    def follow(self, parent: Tensor) -> None:
        """Replace the hypotheses of each set by those of the given indices, `(batch, hypotheses)`."""

        def pick(x: Tensor) -> Tensor:
            return x.gather(1, parent.reshape(*parent.shape, *(1,) * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))

        self.prefix = pick(self.prefix)
        self.done, self.finished = pick(self.done), pick(self.finished)
        self.parent = parent


@torch.no_grad()
def decode(
    decoder: PointerDecoder,
    memory: PointerMemory,
    strategy: Strategy = "greedy",
    width: int = 10,
    constraint: Constraint | None = None,
    max_steps: int | None = None,
    generator: torch.Generator | None = None,
) -> Decoding:
    """Return decoded sequences; see `PointerNetwork.decode`.

    Args:
        decoder: Decoder.
        memory: Encoded sets.
        strategy: "greedy", "beam" or "sample".
        width: Number of hypotheses or samples of each set.
        constraint: Choices that may follow a prefix.
        max_steps: Largest number of steps, without the stop.
        generator: Random generator of the samples.
    """
    one_of("strategy", strategy, ("greedy", "beam", "sample"))
    whole("width", width)
    check_generator(generator)
    check_constraint(constraint)
    if max_steps is not None:
        whole("max_steps", max_steps)
    steps = _limit(decoder, memory, constraint) if max_steps is None else max_steps
    if strategy == "beam" and width == 1:
        strategy = "greedy"
    rows = {"greedy": 1, "beam": width + 1, "sample": width}[strategy]  # the last row of a beam search is greedy
    found = _search(decoder, memory, strategy, rows, constraint, steps, generator)
    if strategy == "beam":
        found = _with_greedy(found)
    return _ended(_sorted(found), steps, every=strategy == "sample")


def _ended(found: Decoding, steps: int, every: bool = False) -> Decoding:
    """Return the sequences after a check that the best one of each set, or each of them, could end."""
    lost = torch.isneginf(found.log_probs if every else found.log_probs[:, :1]).any(1)
    if bool(lost.any()):
        raise InputError(
            f"a sequence of row {int(lost.nonzero()[0, 0])} of the batch can't end after max_steps={steps} choices, "
            "where the constraint forbids the stop; raise max_steps"
        )
    return found


def _limit(decoder: PointerDecoder, memory: PointerMemory, constraint: Constraint | None) -> int:
    """Return the default number of steps."""
    n = memory.valid.shape[1]
    if constraint is None:
        return 2 * n + 1 if decoder.stops else n
    limit = getattr(constraint, "max_steps", None)
    if limit is None:
        raise InputError(
            "max_steps must be given for a constraint of your own: the largest number of choices of a sequence"
        )
    return int(limit(n))


def _search(
    decoder: PointerDecoder,
    memory: PointerMemory,
    strategy: Strategy,
    width: int,
    constraint: Constraint | None,
    steps: int,
    generator: torch.Generator | None,
) -> Decoding:
    batch, n = memory.valid.shape
    score, step, device = decoder.scorer(memory), decoder.stepper(memory), memory.keys.device
    precise = torch.float64 if memory.keys.dtype == torch.float64 else torch.float32
    hypotheses = _Hypotheses(
        prefix=torch.full((batch, width, steps + decoder.stops), -1, dtype=torch.int64, device=device),
        score=torch.zeros(batch, width, device=device, dtype=precise),
        done=torch.zeros(batch, width, dtype=torch.bool, device=device),
        finished=torch.zeros(batch, width, dtype=torch.bool, device=device),
        choice=torch.full((batch, width), n, device=device),
        state=(memory.state[0][:, None].expand(-1, width, -1), memory.state[1][:, None].expand(-1, width, -1)),
    )
    if strategy == "beam":
        hypotheses.score[:, 1:-1] = -torch.inf  # all hypotheses are equal before the first step
    for t in range(steps + decoder.stops):  # the last step can only stop
        hypotheses.state = step(hypotheses.choice, hypotheses.state, hypotheses.parent)
        allowed = _allowed(decoder, hypotheses, memory, constraint, t)
        scores = score(hypotheses.state[0], allowed).to(precise)
        _check_scores(scores)
        log_probs = _log_probs(decoder, hypotheses, scores, allowed)
        if t == steps:  # what could go on is cut
            hypotheses.finished |= ~allowed[..., :n].any(-1)
            log_probs[..., :n] = -torch.inf
        choice = _advance(hypotheses, log_probs, strategy, generator)
        stopped = choice == n
        hypotheses.done |= stopped
        if t < steps:
            hypotheses.finished |= stopped
            hypotheses.prefix[..., t] = torch.where(stopped, -1, choice)
            hypotheses.choice = choice
        if bool(hypotheses.done.all()):
            break
    if not decoder.stops:
        hypotheses.finished |= ~_allowed(decoder, hypotheses, memory, constraint, steps)[..., :n].any(-1)
    return Decoding(hypotheses.prefix, hypotheses.score, hypotheses.finished)


def _check_scores(scores: Tensor) -> None:
    """Check that no score is NaN; minus infinity marks missing elements."""
    bad = scores.isnan().flatten(1).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise InputError(f"the scores of row {row} of the batch are NaN; check its elements and the weights for NaN")


def _log_probs(decoder: PointerDecoder, hypotheses: _Hypotheses, scores: Tensor, allowed: Tensor) -> Tensor:
    """Return the log probability of each choice and of the stop, `(batch, hypotheses, n + 1)`."""
    if not decoder.stops:  # without a stop, a sequence ends where no element may follow
        hypotheses.done |= ~allowed[..., :-1].any(-1)
        scores = torch.nn.functional.pad(scores, (0, 1), value=-torch.inf)
        allowed[..., -1] = False
    log_probs = scores.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    log_probs = log_probs.masked_fill(~allowed, -torch.inf)  # where nothing is allowed, the softmax is NaN
    stay = torch.full_like(log_probs, -torch.inf)
    stay[..., -1] = 0
    return torch.where(hypotheses.done[..., None], stay, log_probs)


def _allowed(
    decoder: PointerDecoder, hypotheses: _Hypotheses, memory: PointerMemory, constraint: Constraint | None, t: int
) -> Tensor:
    """Return the choices that may follow after t steps, `(batch, hypotheses, n + 1)`."""
    prefix = hypotheses.prefix[..., :t]
    if constraint is None:
        more = memory.valid if decoder.stops else memory.valid & (t < memory.valid.sum(1))[:, None]
        return torch.nn.functional.pad(more, (0, 1), value=True)[:, None].repeat(1, prefix.shape[1], 1)
    allowed = allowed_choices(constraint, prefix, memory.valid)
    stuck = ~allowed.any(-1) & ~hypotheses.done & ~torch.isneginf(hypotheses.score)
    if bool(stuck.any()):
        row = int(stuck.nonzero()[0, 0])
        raise InputError(
            f"the constraint allows no choice after {t} steps in row {row} of the batch, not even the stop; "
            "it must allow the stop where a sequence can end"
        )
    return allowed


def _advance(
    hypotheses: _Hypotheses, log_probs: Tensor, strategy: Strategy, generator: torch.Generator | None
) -> Tensor:
    """Extend the hypotheses by one choice each, and return it, `(batch, hypotheses)`; n is the stop."""
    batch, width, choices = log_probs.shape
    if strategy == "beam":
        beams = width - 1
        total = (hypotheses.score[:, :beams, None] + log_probs[:, :beams]).flatten(1)
        if total.shape[1] < beams:
            total = torch.nn.functional.pad(total, (0, beams - total.shape[1]), value=-torch.inf)
        score, place = total.topk(beams)
        gain, choice = log_probs[:, beams:].max(-1)
        hypotheses.score = torch.cat([score, hypotheses.score[:, beams:] + gain], 1)
        parent = (place // choices).clamp(max=beams - 1)
        hypotheses.follow(torch.cat([parent, torch.full_like(choice, beams)], 1))
        return torch.cat([place % choices, choice], 1)
    if strategy == "greedy":
        gain, choice = log_probs.max(-1)
    else:
        probs = log_probs.exp().flatten(0, 1)
        probs[probs.sum(-1) == 0, -1] = 1  # a sequence that may not go on and may not stop
        choice = probs.multinomial(1, generator=generator).reshape(batch, width)
        gain = log_probs.gather(-1, choice[..., None])[..., 0]
    hypotheses.score = hypotheses.score + gain
    return choice


def _sorted(found: Decoding) -> Decoding:
    """Return the hypotheses of each set by their probability; those that are impossible are emptied."""
    score, order = found.log_probs.sort(dim=-1, descending=True, stable=True)
    dead = torch.isneginf(score)
    sequences = found.sequences.gather(1, order[..., None].expand_as(found.sequences))
    finished = found.finished.gather(1, order) & ~dead
    return Decoding(sequences.masked_fill(dead[..., None], -1), score, finished)


def _with_greedy(found: Decoding) -> Decoding:
    """Return the hypotheses of a beam search without the greedy row, which replaces the worst if the beam lost it."""
    sequences, log_probs, finished = (t[:, :-1].clone() for t in (found.sequences, found.log_probs, found.finished))
    own, gain = found.sequences[:, -1], found.log_probs[:, -1]
    missing = ~(sequences == own[:, None]).all(-1).any(-1)
    worst = log_probs.argmin(1)
    take = (missing & (gain > log_probs.gather(1, worst[:, None])[:, 0])).nonzero()[:, 0]
    sequences[take, worst[take]] = own[take]
    log_probs[take, worst[take]] = gain[take]
    finished[take, worst[take]] = found.finished[take, -1]
    return Decoding(sequences, log_probs, finished)
