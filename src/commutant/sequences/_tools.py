"""Parallel wrapper of any cell, comparison of a recurrence with its loop, and Lyapunov exponents."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_tolerance, one_of, positive
from .._errors import InputError
from ..parameters import called_with
from ._block import RNNBlock
from ._find import METHODS, Method, SolveInfo
from ._flow_cells import FlowRNN
from ._graph_rnn import GraphRNN
from ._layers import ParallelRecurrence
from ._probes import check_step, scattered
from ._solve import solve_recurrence
from ._sparse import SparseRecurrence


class ParallelCell(nn.Module):
    """A cell lifted to whole sequences, batch first; `parallel_rnn` checks a cell and returns this module.

    Args:
        cell: Module of one step, `cell(x_t, h) -> h`.
        method: Solver, see `solve_recurrence`.
        bound: Upper bound on |h|, or None if unknown.
        state_shape: Shape of h without the batch axis, or None for `(cell.hidden_size,)`.
    """

    def __init__(
        self, cell: nn.Module, method: Method, bound: float | None, state_shape: tuple[int, ...] | None
    ) -> None:
        super().__init__()
        self.cell, self.method, self.bound, self.state_shape = cell, method, bound, state_shape
        self.info: tuple[SolveInfo, ...] = ()
        self.fallbacks = 0

    def forward(
        self, x: Float[Tensor, "batch time features"], h_0: Tensor | None = None, *, process_group: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Run the cell over whole sequences.

        Args:
            x: Inputs `(batch, time, features)`.
            h_0: Initial state `(batch, *state)`; zero when absent.
            process_group: Process group over which time is split, see `solve_recurrence`.

        Returns:
            The states `(batch, time, *state)` and the last state `(batch, *state)`.
        """
        if not isinstance(x, Tensor) or x.dim() < 3:
            raise InputError(f"x must be (batch, time, ...), got {tuple(x.shape) if hasattr(x, 'shape') else type(x)}")
        h_0 = x.new_zeros(x.shape[0], *self._state_shape()) if h_0 is None else h_0
        parameters = dict(self.cell.named_parameters())

        def step(h: Tensor, x_t: Tensor, *values: Tensor) -> Tensor:
            return called_with(self.cell, dict(zip(parameters, values, strict=True)), (x_t, h))  # type: ignore[no-any-return]

        y, info = solve_recurrence(
            step,
            x,
            h_0,
            params=tuple(parameters.values()),
            method=self.method,
            bound=self.bound,
            process_group=process_group,
        )
        self.info = (info,)
        self.fallbacks += bool(info.fell_back)
        return y, y[:, -1] if y.shape[1] else h_0

    def _state_shape(self) -> tuple[int, ...]:
        if self.state_shape is not None:
            return self.state_shape
        width = getattr(self.cell, "hidden_size", None)
        if width is None:
            raise InputError(f"{type(self.cell).__name__} has no hidden_size; give h_0, or state_shape in parallel_rnn")
        return (width,)


def parallel_rnn(
    cell: nn.Module,
    *,
    method: Method = "auto",
    bound: float | None = None,
    state_shape: tuple[int, ...] | None = None,
) -> ParallelCell:
    """Lift a cell `cell(x_t, h) -> h` (the signature of `torch.nn.GRUCell`) to sequences, solved in parallel.

    The result shares the parameters of the cell. The structure of the Jacobian is found by probing. A dense Jacobian
    (as of `nn.GRUCell`) costs the cube of the state size, so a parallel solution pays only for small or diagonal cells.

    The cell must be a function of `(x_t, h)` and its parameters, row by row. The solver calls it on many steps at once
    and in another order than a loop. Probing finds and refuses batch statistics (BatchNorm in training), changed
    attributes or buffers, writes into the arguments, and random numbers (dropout in training). Call `eval()` first to
    use a cell with dropout or BatchNorm. An attribute that is None until the first call counts as a cache. If a cell
    initializes itself from data, call it once on real data first.

    Args:
        cell: Module of one step.
        method: Solver, see `solve_recurrence`.
        bound: Upper bound on |h|, if known; enables the method `tabulated`, which solves bistable cells.
        state_shape: Shape of h without the batch axis; by default `(cell.hidden_size,)`.

    Raises:
        InputError: For a class, a layer over whole sequences, or a module that does not take `(x_t, h)`.

    Example:
        >>> rnn = parallel_rnn(torch.nn.GRUCell(3, 4))
        >>> y, h_n = rnn(torch.randn(2, 200, 3))
        >>> y.shape
        torch.Size([2, 200, 4])
    """
    if isinstance(cell, type):
        raise InputError(f"cell must be a module, got the class {cell.__name__}; give an instance of it")
    if not isinstance(cell, nn.Module):
        raise InputError(
            f"cell must be a torch.nn.Module, got {type(cell).__name__}; use solve_recurrence for functions"
        )
    if isinstance(cell, nn.LSTMCell):
        raise InputError("cell must have one tensor as its state, but the state of an LSTMCell is a pair; use ParaLSTM")
    if isinstance(
        cell, nn.RNNBase | ParallelRecurrence | ParallelCell | RNNBlock | GraphRNN | SparseRecurrence | FlowRNN
    ):
        raise InputError(
            f"cell must be a module of one step such as nn.GRUCell, but {type(cell).__name__} runs over whole sequences"
        )
    try:
        inspect.signature(cell.forward).bind(None, None)
    except TypeError as error:
        raise InputError(f"cell must take (x_t, h), but {type(cell).__name__} has {error}") from error
    one_of("method", method, METHODS)
    if bound is not None:
        positive("bound", bound)
    return ParallelCell(cell, method, bound, state_shape)


@dataclass(frozen=True)
class AgreementReport:
    """Comparison of a recurrence with its own loop.

    Attributes:
        max_error: Largest difference of the outputs, relative to the largest output of the same channel over time.
        gradient_error: Largest difference of the gradients of x and the parameters, each relative to its maximum.
        first_bad_step: First step whose output differs by more than the tolerance, or None.
        tolerance: Largest relative difference that was allowed.
        info: Report of each solve.
    """

    max_error: float
    gradient_error: float
    first_bad_step: int | None
    tolerance: float
    info: tuple[SolveInfo, ...]

    @property
    def agrees(self) -> bool:
        """Return whether outputs and gradients agree within the tolerance."""
        return self.max_error <= self.tolerance and self.gradient_error <= self.tolerance

    def __str__(self) -> str:
        methods = ", ".join(info.method for info in self.info)
        if self.agrees:
            return (
                f"{methods} agrees with the loop: outputs to {self.max_error:.1e}, "
                f"gradients to {self.gradient_error:.1e}"
            )
        where = "" if self.first_bad_step is None else f", first at step {self.first_bad_step}"
        return (
            f"{methods} differs from the loop: outputs by {self.max_error:.1e}{where}, "
            f"gradients by {self.gradient_error:.1e} (allowed {self.tolerance:.1e})"
        )


def check_parallel(
    module: ParallelRecurrence | ParallelCell, x: Tensor, *, tolerance: float | None = None
) -> AgreementReport:
    """Run a recurrent module with its own method and step by step, and compare outputs and gradients.

    Args:
        module: Recurrent layer of `commutant.sequences`, or the result of `parallel_rnn`.
        x: Input of the module.
        tolerance: Largest relative difference allowed; by default 1000 units in the last place.

    Raises:
        InputError: For another module, an empty input or a negative tolerance.

    Example:
        >>> print(check_parallel(ParaGRU(3, 4), torch.randn(300, 2, 3)))  # doctest: +SKIP
        multishoot agrees with the loop: outputs to 1.2e-07, gradients to 2.1e-07
    """
    if not isinstance(module, ParallelRecurrence | ParallelCell):
        raise InputError(f"module must be a recurrent module of commutant.sequences, got {type(module).__name__}")
    if not isinstance(x, Tensor) or x.numel() == 0:
        given = "an empty tensor" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x must be a tensor with at least one step and one row, got {given}")
    check_tolerance(tolerance)
    method, counted = module.method, module.fallbacks
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        y, grads = _run(module, x)
        info = module.info
        module.method = "loop"
        expected, expected_grads = _run(module, x)
    finally:
        module.method, module.fallbacks = method, counted  # type: ignore[assignment]
        for part, was in training.items():
            part.training = was
    tolerance = 1000 * torch.finfo(y.dtype).eps if tolerance is None else tolerance
    time = 0 if isinstance(module, ParallelRecurrence) and not module.batch_first else 1
    time = min(time, y.dim() - 1)
    size = expected.abs().nan_to_num(nan=0.0, posinf=0.0).amax(time, keepdim=True)  # largest output of each channel
    gap = (y - expected).abs() / size.clamp(min=torch.finfo(y.dtype).tiny)
    gap = gap.masked_fill((y == expected) | (y.isnan() & expected.isnan()), 0).nan_to_num(nan=torch.inf)
    bad = (gap > tolerance).movedim(time, 0).flatten(1).any(1).nonzero() if gap.numel() else gap
    gradient = max((_gradient_error(a, b) for a, b in zip(grads, expected_grads, strict=True)), default=0.0)
    first = int(bad[0]) if bad.numel() else None
    return AgreementReport(float(gap.max()) if gap.numel() else 0.0, gradient, first, tolerance, info)


def _gradient_error(a: Tensor, b: Tensor) -> float:
    gap = (a - b).abs().masked_fill((a == b) | (a.isnan() & b.isnan()), 0)
    return float(gap.nan_to_num(nan=torch.inf).max() / b.nan_to_num().abs().max().clamp(min=1e-30))


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        y = module(x)[0]
        leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
        weights = torch.sin(torch.arange(y.numel(), dtype=torch.float64, device=y.device)).to(y.dtype).view(y.shape)
        grads = torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True)
    return y.detach(), [g for g in grads if g is not None and g.numel()]


@torch.no_grad()
def lyapunov_exponent(module: ParallelRecurrence | ParallelCell, x: Tensor, h_0: Any = None) -> float:
    """Return the largest Lyapunov exponent of a recurrence along its trajectory on x, in nats per step.

    This is the mean growth rate of a small perturbation of the initial state, averaged over the batch. It is negative
    for a recurrence that forgets. It does not bound the number of Newton iterations. A trained parity cell has an
    exponent of -0.5, yet needs a number of iterations that grows with the length.

    Args:
        module: Recurrent layer of `commutant.sequences`, whose first layer is measured, or the result of
            `parallel_rnn`.
        x: Input of the module, batch first for `ParallelCell`.
        h_0: Initial state of the first layer, `(batch, *state)`; by default that of the module.

    Raises:
        InputError: For another module, or an input without steps or rows.

    Example:
        >>> cell = parallel_rnn(torch.nn.GRUCell(2, 4))
        >>> lyapunov_exponent(cell, torch.randn(3, 100, 2)) < 0.5
        True
    """
    if not isinstance(x, Tensor):
        raise InputError(f"x must be a tensor, got {type(x).__name__}")
    step, inputs, start = _stepper(module, x, h_0)
    tangent = torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start)
    tangent = tangent / tangent.flatten(1).norm(dim=1).view(-1, *[1] * (tangent.dim() - 1))
    state, growth = start, []
    for x_t in inputs:
        state, tangent = torch.func.jvp(lambda h, x_t=x_t: step(h, x_t), (state,), (tangent,))[:2]
        norm = tangent.flatten(1).norm(dim=1).clamp(min=torch.finfo(start.dtype).tiny)
        growth.append(norm.log())
        tangent = tangent / norm.view(-1, *[1] * (tangent.dim() - 1))
    if not growth or start.shape[0] == 0:
        raise InputError("x must have at least one step and one row, got an empty input")
    return float(torch.stack(growth).mean())


def _stepper(
    module: ParallelRecurrence | ParallelCell, x: Tensor, h_0: Any
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
    if isinstance(module, ParallelCell):
        start = x.new_zeros(x.shape[0], *module._state_shape()) if h_0 is None else h_0
        step = lambda h, x_t: module.cell(x_t, h)  # noqa: E731
        if x.shape[1]:
            check_step(step, scattered(start), (x[:, 0],))
        return step, x.transpose(0, 1), start
    if not isinstance(module, ParallelRecurrence):
        raise InputError(f"module must be a recurrent module of commutant.sequences, got {type(module).__name__}")
    if x.dim() != 3:
        raise InputError(f"x must be a batch of sequences with 3 axes, got shape {tuple(x.shape)}")
    time_first = x.transpose(0, 1) if module.batch_first else x
    pre, weights = module._gates(time_first, "_l0")
    cell = module.cell
    start = cell.initial(x.shape[0 if module.batch_first else 1], module.hidden_size, pre) if h_0 is None else h_0
    own = pre[..., : cell.gates, :]
    return lambda h, p: cell.step(h, (p,), (weights[: cell.recurrent],)), own, start
