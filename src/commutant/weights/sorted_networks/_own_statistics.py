"""Running statistics of batch norms of each sub-network."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from ._menu import Budget


class OwnStatistics:
    """Running means and variances by budget, while they are those of the present weights.

    Args:
        model: Network of full size.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.norms = tuple(
            name
            for name, m in model.named_modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
        )
        self.values: dict[Budget, dict[str, Tensor]] = {}
        self.warned: set[Budget | None] = set()
        self._mixed = False  # whether sub-networks have moved the statistics of the full network
        self._weights: tuple[int, ...] | None = None  # versions of the weights for which the values hold

    def _versions(self) -> tuple[int, ...]:
        return tuple(p._version for p in self.model.parameters() if not p.is_inference())

    def in_training(self) -> bool:
        """Return whether all batch norms use the statistics of the batch."""
        return all(self.model.get_submodule(name).training for name in self.norms)

    def known(self, budget: Budget | None) -> dict[str, Tensor] | None:
        """Return the buffers of a sub-network, on the device and in the dtype of the model, if they are known.

        Args:
            budget: Its budget.
        """
        if budget is None or budget not in self.values:
            return None
        versions = self._versions()
        if self._weights not in (None, versions):
            self.values, self._mixed = {}, True
            return None
        self._weights = versions
        full = {name: self.model.get_buffer(name) for name in self.values[budget]}
        return {name: value.to(full[name].device, full[name].dtype) for name, value in self.values[budget].items()}

    def of(self, budget: Budget | None, full: bool) -> dict[str, Tensor] | None:
        """Return the buffers to evaluate a sub-network with; warn where they are not known.

        Args:
            budget: Its budget.
            full: Whether it is the full network.
        """
        if not self.norms:
            return None
        if self.in_training():
            self._mixed = self._mixed or not full
            return None
        found = self.known(budget)
        if found is None and budget not in self.warned and (self._mixed or not full):
            self.warned.add(budget)
            warnings.warn(
                f"the running statistics of batch norms are not those of {budget or 'the full network'}: call "
                "calibrate(batches) with training data before you evaluate it",
                stacklevel=6,
            )
        return found

    def set(self, values: dict[Budget, dict[str, Tensor]], *, measured: bool) -> None:
        """Take new statistics.

        Args:
            values: Buffers by budget and name.
            measured: Whether they were measured with the present weights, those of the full network included; else
                they were loaded, and the weights of the next call count.
        """
        self.values, self._weights = values, self._versions() if measured else None
        if measured:
            self._mixed = False
            self.warned.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_weights": None}  # copies have versions of their own
