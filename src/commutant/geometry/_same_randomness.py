"""Random numbers shared by all copies of an input, which keeps averages symmetric in training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._errors import InputError
from ..algebra import Clouds, Copies

_PRODUCTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout)
_ALPHA = (F.alpha_dropout, F.feature_alpha_dropout)
_FILLS = tuple(
    getattr(Tensor, f"{name}_")
    for name in ("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal", "random", "uniform")
)
_DRAWS: dict[Any, Any] = {
    torch.rand: Tensor.uniform_,
    torch.rand_like: Tensor.uniform_,
    torch.randn: Tensor.normal_,
    torch.randn_like: Tensor.normal_,
}


@contextmanager
def same_randomness(clouds: Clouds, shared: bool) -> Iterator[Callable[[Copies, Sequence[Tensor]], None]]:
    """Draw dropout and noise once per cloud and share them among all its copies, if `shared`.

    Yields a function to call with the copies that the network is about to see, and with the edge behind each copied
    edge. Later parts of a batch share the numbers of the first part. Alpha dropout is refused. A warning says
    that the network draws numbers in another way (dropout inside attention or `nn.GRU`), which differ between copies.
    """
    if not shared:
        yield lambda *_: None
        return
    numbers = _other_states()
    mode = _SameRandomness(clouds)
    with mode:
        yield mode.begin
    if mode.unshared or not mode.known() or numbers != _other_states():
        warnings.warn(
            "the network draws random numbers in training that may differ between the frames of a cloud (dropout "
            "inside attention, nn.GRU or nn.LSTM, or noise without a row for each point, cloud or edge): its average "
            "is then symmetric in expectation only",
            stacklevel=5,
        )


def _other_states() -> tuple[Any, ...]:
    """Return the state of NumPy's global generator; that of Python changes with run-time type checkers."""
    state = np.random.get_state(legacy=False)["state"]  # type: ignore[call-overload]
    return state["key"].tobytes(), state["pos"]


class _SameRandomness(TorchFunctionMode):
    """Mode that draws random numbers per cloud and copies them; the leading axis of a tensor says whose rows it has."""

    def __init__(self, clouds: Clouds) -> None:
        super().__init__()
        self.clouds = clouds
        self.copies: Copies | None = None
        self.edges: Sequence[Tensor] = ()
        self.drawn: list[Tensor] = []
        self.at = 0
        self.unshared = False
        self.state = self._generators()

    def begin(self, copies: Copies, edges: Sequence[Tensor] = ()) -> None:
        """Start the next part of the batch."""
        self.copies, self.edges, self.at = copies, edges, 0

    @staticmethod
    def _generators() -> list[Tensor]:
        found = [torch.get_rng_state()]
        return [*found, torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else found

    def known(self) -> bool:
        """Return whether all numbers drawn so far are shared."""
        return all(torch.equal(a, b) for a, b in zip(self.state, self._generators(), strict=False))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (func in _PRODUCTS or func in _ALPHA) and _drops(args, kwargs):
            if func in _ALPHA:
                raise InputError("alpha dropout can't be shared between the frames of a cloud: use nn.Dropout")
            x = args[0] if args else kwargs["input"]
            rest = {k: v for k, v in kwargs.items() if k not in ("input", "inplace")}
            factors = self._shared(x, lambda like: func(torch.ones_like(like), *args[1:], **rest))
            return func(*args, **kwargs) if factors is None else x * factors
        if func in _FILLS and not any(isinstance(a, Tensor) for a in (*args[1:], *kwargs.values())):
            filled = self._shared(args[0], lambda like: func(like, *args[1:], **kwargs))
            return func(*args, **kwargs) if filled is None else args[0].copy_(filled)
        if func in _DRAWS and kwargs.get("out") is None:
            like = _result_of(func, args, kwargs)
            own = {k: v for k, v in kwargs.items() if k == "generator"}
            filled = self._shared(like, lambda like: _DRAWS[func](like, **own))
            return func(*args, **kwargs) if filled is None else filled.requires_grad_(like.requires_grad)
        return func(*args, **kwargs)

    def _shared(self, x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Draw once for the rows behind those of x and copy the numbers; None if the rows are unknown."""
        found = (1, lambda drawn: drawn.expand(x.shape)) if x.numel() == 1 else self._rows(x)
        if found is None:
            self.unshared = True
            return None
        rows, copied = found
        if self.at == len(self.drawn):
            self.unshared |= not self.known()
            shape = x.shape if x.numel() == 1 else (rows, *x.shape[1:])
            self.drawn.append(draw(torch.empty(shape, dtype=x.dtype, device=x.device)))
            self.state = self._generators()
        self.at += 1
        return copied(self.drawn[self.at - 1])

    def _rows(self, x: Tensor) -> tuple[int, Callable[[Tensor], Tensor]] | None:
        """Return the number of rows of the batch behind those of x, and a function that copies draws to them."""
        if self.copies is None or not x.dim():
            return None
        copies, points, index = self.copies.cloud, self.copies.rows, self.clouds.index
        behind = []
        if points is not None and index is not None and len(x) == len(points):
            behind.append((len(index), points))
        behind += [(int(e.max()) + 1 if len(e) else 0, e) for e in self.edges if len(x) == len(e)]
        if any(not _same_partition(behind[0][1], other) for _, other in behind[1:]):
            return None
        if behind:
            rows, places = behind[0]
            return rows, lambda drawn: drawn[places]
        if len(copies) and len(x) % len(copies) == 0:  # a fixed number of rows per cloud
            each = len(x) // len(copies)
            number = self.clouds.number
            return number * each, lambda drawn: drawn.unflatten(0, (number, each))[copies].flatten(0, 1)
        return None


def _same_partition(first: Any, second: Any) -> bool:
    """Return whether two indices group rows alike."""
    a, b = (torch.unique(index, return_inverse=True)[1] for index in (first, second))
    kinds = {len(torch.unique(index)) for index in (a, b, a * (len(b) + 1) + b)}
    return len(kinds) == 1


def _result_of(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Return an empty tensor like the result of a call of `torch.rand` and similar functions."""
    rest = {k: v for k, v in kwargs.items() if k not in ("generator", "device", "pin_memory")}
    shown = func(*args, **rest, device="meta")
    given = args[0] if args else kwargs.get("input")
    device = kwargs.get("device") or (given.device if isinstance(given, Tensor) else torch.get_default_device())
    return torch.empty(shown.shape, dtype=shown.dtype, device=device, requires_grad=shown.requires_grad)


def _drops(args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether this call of a dropout function drops entries."""
    chance = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    trains = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    return bool(trains) and float(chance) > 0
