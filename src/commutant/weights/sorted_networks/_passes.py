"""Calls of nested networks of different depth that compute each block once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from ._cut import Cut, Skipped


class Replayed(nn.Module):
    """Block whose output is known.

    Args:
        output: Output of the block.
    """

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.__dict__["output"] = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output.

        Args:
            args: Ignored.
            kwargs: Ignored.
        """
        return self.__dict__["output"]


def replayed(blocks: list[str], output: Any) -> dict[str, nn.Module]:
    """Return modules to use in place of blocks, of which the output of the last one is known.

    Args:
        blocks: Names of the blocks, in order.
        output: Output of the last one.
    """
    return {**{name: Skipped() for name in blocks[:-1]}, blocks[-1]: Replayed(output)}


class SharedPasses:
    """Passes that share the blocks that sub-networks of equal widths have in common.

    Args:
        model: Network.
        blocks: Names of its blocks, in order.
    """

    def __init__(self, model: nn.Module, blocks: tuple[str, ...]) -> None:
        self.model, self.blocks = model, blocks
        self._known: dict[tuple[tuple[str, int], ...], tuple[list[Any], dict[str, Any]]] = {}

    def run(self, cut: Cut, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a sub-network; use the blocks of a deeper one of the same widths that ran on the same inputs.

        Args:
            cut: Sub-network.
            args: Arguments.
            kwargs: Keyword arguments.
        """
        given = pytree.tree_leaves((args, dict(kwargs)))
        left = [name for name in self.blocks if name not in cut.gone]
        before, outputs = self._known.get(key := tuple(sorted(cut.widths.items())), ([], {}))
        if (
            len(before) == len(given)
            and all(a is b for a, b in zip(before, given, strict=True))
            and left[-1] in outputs
        ):
            with cut.applied(replaced=replayed(left, outputs[left[-1]])):
                return self.model(*args, **kwargs)
        found: dict[str, Any] = {}

        def keep(name: str) -> Any:
            return lambda module, inputs, output: found.__setitem__(name, output)

        handles = [self.model.get_submodule(name).register_forward_hook(keep(name)) for name in left]
        try:
            with cut.applied():
                result = self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        self._known[key] = (given, found)
        return result
