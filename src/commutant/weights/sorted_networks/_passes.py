"""Calls of nested networks of different depth that compute each block once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Outputs = Mapping[str, Any]


@contextlib.contextmanager
def recording(model: nn.Module, blocks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Keep the output of each block, of the last call if there are several; later changes in place do not reach it.

    Args:
        model: Network.
        blocks: Names of its blocks.
    """
    found: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: found.__setitem__(name, _copy(output))

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def replaying(model: nn.Module, outputs: Outputs) -> Iterator[None]:
    """Let blocks return known outputs instead of computing them.

    Args:
        model: Network.
        outputs: Output of each block, by its name.
    """
    parts = [(vars(model.get_submodule(name)), output) for name, output in outputs.items()]
    before = [held.get("forward") for held, _ in parts]

    def answer(output: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: _copy(output)

    try:
        for held, output in parts:
            held["forward"] = answer(output)
        yield
    finally:
        for (held, _), old in zip(parts, before, strict=True):
            del held["forward"]
            if old is not None:
                held["forward"] = old


def _copy(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)


class SharedPasses:
    """Passes that share the blocks that sub-networks of equal widths have in common.

    Args:
        model: Network.
        blocks: Names of its blocks, in order.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        self.model, self.blocks = model, tuple(blocks)
        self._weights = list(model.parameters())
        self._known: dict[Any, tuple[Any, Outputs]] = {}

    def run(self, widths: Mapping[str, int], gone: Sequence[str], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run the sub-network to which the model is cut; use the blocks of a deeper one that ran on the same inputs.

        Args:
            widths: Widths of its groups.
            gone: Names of the blocks that it leaves out.
            args: Arguments.
            kwargs: Keyword arguments.
        """
        left = [name for name in self.blocks if name not in gone]
        key, state = tuple(sorted(widths.items())), self._state(args, kwargs)
        before, outputs = self._known.get(key, (None, {}))
        if before is not None and _same(before, state) and all(name in outputs for name in left):
            with replaying(self.model, {name: outputs[name] for name in left}):
                return self.model(*args, **kwargs)
        with recording(self.model, left) as found:
            result = self.model(*args, **kwargs)
        self._known[key] = (self._state(args, kwargs), found)
        return result

    def _state(self, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, ...]:
        """Return all that the outputs of blocks depend on: inputs and weights with their versions, and modes."""
        leaves, tree = pytree.tree_flatten((args, dict(kwargs)))
        versions = [x._version for x in (*leaves, *self._weights) if isinstance(x, Tensor) and not x.is_inference()]
        return leaves, tree, versions, torch.is_grad_enabled(), frozenset(m.training for m in self.model.modules())


def _same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    if len(first[0]) != len(second[0]) or first[1:] != second[1:]:
        return False
    pairs = zip(first[0], second[0], strict=True)
    return all(a is b or (not isinstance(a, Tensor) and type(a) is type(b) and a == b) for a, b in pairs)
