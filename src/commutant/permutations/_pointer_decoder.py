"""Recurrent decoder that points at encoded elements, one per step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ..kernels import lstm_step
from ._pointer_attention import PointerAttention, Scoring
from ._pointer_constraints import Constraint

_MOST_GATES = 1 << 26
"""Most numbers of the products of the LSTM with all elements that are kept at once."""


@dataclass(frozen=True, eq=False)
class PointerMemory:
    """Encoded sets, once for all targets and hypotheses.

    Attributes:
        keys: Encoded elements, to which the decoder points, `(batch, n, hidden)`.
        inputs: Features of each element that the decoder reads after it has chosen the element, `(batch, n, features)`.
        valid: Whether a position holds an element, `(batch, n)`.
        state: Initial hidden and cell state of the decoder, each `(batch, hidden)`.
    """

    keys: Tensor
    inputs: Tensor
    valid: Tensor
    state: tuple[Tensor, Tensor]


class PointerDecoder(nn.Module):
    """LSTM decoder whose output at each step is a distribution over the encoded elements.

    Choices are indices of elements; -1 is the stop, and also fills up sequences after it. A decoder with a stop has a
    learned key for it in the last column of its scores, which is column -1.

    Args:
        hidden_size: Width of the keys and of the LSTM.
        input_size: Width of the features that it reads after each choice; by default `hidden_size`.
        attention: Form of the scores, as in `PointerAttention`.
        stop: Whether the decoder may stop; if not, the length of a sequence is given by the task.
        clip: Bound of the scores, or None.

    Reference:
        Vinyals, Fortunato and Jaitly, "Pointer Networks", NeurIPS 2015, section 2.3.
    """

    def __init__(
        self,
        hidden_size: int,
        input_size: int | None = None,
        attention: Scoring = "additive",
        stop: bool = True,
        clip: float | None = None,
    ) -> None:
        super().__init__()
        whole("hidden_size", hidden_size)
        one_of("attention", attention, ("additive", "dot", "bilinear"))
        input_size = hidden_size if input_size is None else input_size
        whole("input_size", input_size)
        self.start = nn.Parameter(torch.empty(input_size).uniform_(-0.08, 0.08))
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.attention = PointerAttention(hidden_size, kind=attention, clip=clip)
        self.stop = nn.Parameter(torch.empty(hidden_size).uniform_(-0.08, 0.08)) if stop else None

    @property
    def stops(self) -> bool:
        """Return whether the decoder may stop."""
        return self.stop is not None

    def forward(
        self, memory: PointerMemory, targets: Int[Tensor, "batch *sequences steps"]
    ) -> Float[Tensor, "batch *sequences steps choices"]:
        """Return the scores of all choices at each step, given the targets of the steps before (teacher forcing).

        Args:
            memory: Encoded sets.
            targets: Indices of elements, -1 for the stop and after it, `(batch, steps)`, or `(batch, sequences, steps)`
                for several sequences of each set.

        Returns:
            Scores, `(batch, ..., steps, n + 1)` with the stop last, or `(batch, ..., steps, n)` without a stop; minus
            infinity where there is no element.
        """
        check_targets(memory, targets)
        if not targets.numel():
            return memory.keys.new_zeros(*targets.shape, memory.valid.shape[1] + self.stops)
        targets = targets.long()
        flat = targets.flatten(1)  # (batch, sequences * steps)
        steps = targets.shape[-1]
        chosen = memory.inputs.gather(1, flat.clamp(min=0)[..., None].expand(-1, -1, memory.inputs.shape[-1]))
        chosen = chosen.reshape(-1, steps, chosen.shape[-1])
        start = self.start.to(chosen.dtype).expand(len(chosen), 1, -1)
        repeats = len(chosen) // max(1, len(targets))
        state = tuple(s.repeat_interleave(repeats, 0)[None].contiguous() for s in memory.state)
        hidden, _ = self.lstm(torch.cat([start, chosen[:, :-1]], 1)[:, :steps], state)
        scores = self.scores(hidden.reshape(len(targets), -1, hidden.shape[-1]), self.projected(memory), memory.valid)
        return scores.reshape(*targets.shape, scores.shape[-1])

    def projected(self, memory: PointerMemory) -> Tensor:
        """Return the projected keys of the elements, then of the stop, `(batch, choices, hidden)`."""
        keys = memory.keys
        if self.stop is not None:
            keys = torch.cat([keys, self.stop.to(keys.dtype).expand(len(keys), 1, -1)], 1)
        return self.attention.project_keys(keys)

    def scores(self, hidden: Tensor, projected: Tensor, valid: Tensor) -> Tensor:
        """Return the scores of states, `(batch, m, choices)`.

        Args:
            hidden: Hidden states of the LSTM, `(batch, m, hidden)`.
            projected: Keys from `projected`.
            valid: Whether a position holds an element, `(batch, n)`.
        """
        return self._masked(self.attention.score(hidden, projected), valid)

    def _masked(self, scores: Tensor, valid: Tensor) -> Tensor:
        if self.stop is not None:
            valid = nn.functional.pad(valid, (0, 1), value=True)
        return scores.masked_fill(~valid[:, None], -torch.inf)

    def scorer(self, memory: PointerMemory) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the function from hidden states `(batch, m, hidden)` to scores, for many steps without gradients.

        Its second argument tells which choices may be taken, `(batch, m, n + 1)`; scores of others are not used.

        Args:
            memory: Encoded sets.
        """
        projected = self.projected(memory)
        score, keys = self.attention.scorer(projected), projected.shape[1]
        return lambda hidden, allowed: self._masked(score(hidden, allowed[..., :keys]), memory.valid)

    def stepper(
        self, memory: PointerMemory
    ) -> Callable[[Tensor, tuple[Tensor, Tensor], Tensor | None], tuple[Tensor, Tensor]]:
        """Return the function from last choices, states and parents to the next states, without gradients.

        A hypothesis goes on from the state of its parent, an index into those of its set, or from its own if parents
        are None. The product of the LSTM with its input is made once for each element, unless there are too many of
        them, and its product with a state once for all of the state's children.

        Args:
            memory: Encoded sets. Choices are `(batch, hypotheses)`, where n is the start; states are
                `(batch, hypotheses, hidden)`.
        """
        cell: Any = self.lstm
        start = self.start.to(memory.inputs.dtype).expand(len(memory.inputs), 1, -1)
        inputs = torch.cat([memory.inputs, start], 1)
        few = inputs.shape[0] * inputs.shape[1] * cell.weight_ih_l0.shape[0] <= _MOST_GATES
        bias = cell.bias_ih_l0 + cell.bias_hh_l0
        table = nn.functional.linear(inputs, cell.weight_ih_l0, bias) if few else inputs

        def step(choice: Tensor, state: tuple[Tensor, Tensor], parent: Tensor | None) -> tuple[Tensor, Tensor]:
            own, place = table, choice
            if not few:  # products with the chosen inputs alone
                read = inputs.gather(1, choice[..., None].expand(-1, -1, inputs.shape[-1]))
                own = nn.functional.linear(read, cell.weight_ih_l0, bias)
                place = torch.arange(choice.shape[1], device=choice.device).expand_as(choice)
            if parent is None:
                return lstm_step(own, place, nn.functional.linear(state[0], cell.weight_hh_l0), state[1])
            first = state[0].shape[1] * torch.arange(len(parent), device=parent.device)[:, None]
            used, rows = (parent + first).unique(return_inverse=True)
            h, c = (part.flatten(0, 1).index_select(0, used) for part in state)
            return lstm_step(own, place, nn.functional.linear(h, cell.weight_hh_l0), c, rows)

        return step

    def step_log_probs(
        self,
        memory: PointerMemory,
        targets: Int[Tensor, "batch *sequences steps"],
        constraint: Constraint | None = None,
    ) -> Float[Tensor, "batch *sequences steps"]:
        """Return the log probability of each target given those before it, zero after the stop.

        Args:
            memory: Encoded sets.
            targets: Targets, as in `forward`.
            constraint: Choices that count; probabilities are normalized over them. By default all elements count.
        """
        scores = self(memory, targets)
        if not targets.numel():
            return log_probs_of(scores, targets)
        targets = targets.long()
        if constraint is not None:
            many = targets.reshape(len(targets), -1, targets.shape[-1])
            allowed = [allowed_choices(constraint, many[..., :t], memory.valid) for t in range(many.shape[-1])]
            open_ = torch.stack(allowed, 2).reshape(*targets.shape, many.shape[0] and memory.valid.shape[1] + 1)
            open_ = open_[..., : scores.shape[-1]] | ~self.counted(targets)[..., None]
            dead = ~open_.any(-1)  # the softmax would be NaN
            scores = scores.masked_fill(~(open_ | dead[..., None]), -torch.inf)
        log_probs = log_probs_of(scores, targets)
        if constraint is not None:
            log_probs = log_probs.masked_fill(dead, -torch.inf)
        return log_probs.masked_fill(~self.counted(targets), 0)

    def counted(self, targets: Tensor) -> Tensor:
        """Return whether a step has a probability: those up to the stop, and the stop if the decoder has one."""
        after = (targets < 0).long().cumsum(-1)
        return after == 0 if self.stop is None else (after == 0) | ((after == 1) & (targets < 0))


def log_probs_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the log probability of each choice, in float32 at least, since sums of many steps need the digits.

    Args:
        scores: Scores of all choices, `(..., choices)`.
        targets: Choices, of which -1 is the last column, `(...)`.
    """
    wide = scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
    return wide.log_softmax(-1).gather(-1, targets.remainder(scores.shape[-1])[..., None])[..., 0]


def check_constraint(constraint: object) -> None:
    """Check that a constraint is a function, and not the class of one."""
    if constraint is not None and (not callable(constraint) or isinstance(constraint, type)):
        raise InputError(f"constraint must be a function such as Tour(), got {constraint!r:.60}")


def allowed_choices(constraint: Constraint, prefix: Tensor, valid: Tensor) -> Tensor:
    """Return what a constraint allows, `(batch, hypotheses, n + 1)`, after a check of its answer."""
    check_constraint(constraint)
    allowed = constraint(prefix, valid)
    expected = (*prefix.shape[:2], valid.shape[1] + 1)
    if not isinstance(allowed, Tensor) or allowed.dtype != torch.bool or allowed.shape != expected:
        given = f"{allowed.dtype} of shape {tuple(allowed.shape)}" if isinstance(allowed, Tensor) else repr(allowed)
        raise InputError(f"a constraint must return a boolean tensor of shape {expected}, got {given}")
    return allowed & nn.functional.pad(valid, (0, 1), value=True)[:, None]


def check_targets(memory: PointerMemory, targets: Tensor) -> None:
    """Check that targets are indices of elements or -1."""
    n = memory.valid.shape[1]
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8)
    if not isinstance(targets, Tensor) or targets.dtype not in kinds or targets.dim() < 2:
        given = f"{targets.dtype} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else repr(targets)
        raise InputError(f"targets must be signed integers of shape (batch, ..., steps), got {given}")
    if len(targets) != len(memory.valid):
        raise InputError(f"targets must have one row per set ({len(memory.valid)}), got {len(targets)}")
    if torch.compiler.is_compiling() or not targets.numel():
        return
    stopped = (targets < 0).cummax(-1).values
    if bool((stopped & (targets >= 0)).any()):
        raise InputError("targets must have no index after a -1, which is the stop; pad with -1 at the end only")
    low, high = int(targets.min()), int(targets.max())
    if low < -1 or high >= n:
        raise InputError(f"targets must lie in 0..{n - 1}, or be -1 for the stop, got {low} to {high}")
    row = memory.valid.reshape(len(targets), *(1,) * (targets.dim() - 2), n).expand(*targets.shape[:-1], n)
    if not bool((row.gather(-1, targets.long().clamp(min=0)) | (targets < 0)).all()):
        raise InputError("targets must not point at padding, nor at elements that are no candidates")
