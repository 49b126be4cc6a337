"""Sorted networks in PyTorch Lightning."""

from __future__ import annotations

import contextlib
from typing import Any

from .._errors import InputError, require
from .sorted_networks import SortedModule

Callback: Any = require("pytorch_lightning", "lightning").Callback


class SortedCallback(Callback):  # type: ignore[misc]
    """Callback that draws a sub-network for the forward pass of each training batch.

    The Lightning module holds the plain model; outside training steps, the full network runs. All processes draw the
    same budgets. Use `DDPStrategy(find_unused_parameters=True)` if budgets leave blocks out.

    Args:
        nested: Sorted network of the model that the Lightning module holds.

    Raises:
        InputError: The argument is not a `SortedModule`.
    """

    def __init__(self, nested: SortedModule) -> None:
        super().__init__()
        if not isinstance(nested, SortedModule):
            raise InputError(f"nested must be a SortedModule, got {type(nested).__name__}")
        self.nested = nested
        self._open = contextlib.ExitStack()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Turn the model into a sub-network.

        Args:
            trainer: Trainer.
            pl_module: Lightning module.
            args: As in Lightning.
            kwargs: As in Lightning.

        Raises:
            InputError: The module optimizes by hand, so that forward passes of a step can't be told apart.
        """
        if not pl_module.automatic_optimization:
            raise InputError("SortedCallback needs automatic optimization; with manual steps use sorted_loss")
        self._open.close()
        self._open.enter_context(self.nested.applied(self.nested.draw()))

    def on_before_backward(self, *args: Any, **kwargs: Any) -> None:
        """Turn the model back.

        Args:
            args: As in Lightning.
            kwargs: As in Lightning.
        """
        self._open.close()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Turn the model back, where a step had no backward pass.

        Args:
            args: As in Lightning.
            kwargs: As in Lightning.
        """
        self._open.close()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Turn the model back.

        Args:
            args: As in Lightning.
            kwargs: As in Lightning.
        """
        self._open.close()
