"""Distributions over all subsets of a small ground set, as tables of 2^n utilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._checks import check_features, is_whole
from .._errors import InputError
from ._set_utility import GroundSets, SetUtility

LARGEST = 20
"""Largest ground set whose subsets are enumerated."""
_CHUNK = 1 << 16  # most subsets evaluated at once, of one set or several


class Enumeration(NamedTuple):
    r"""Utilities F of all subsets of one ground set, and what follows from $p(S) \propto e^{F(S)}$ exactly.

    The subset in row r holds the elements i for which bit i of r is set.

    Attributes:
        utilities: Utility of each subset, `(2^n,)`.
    """

    utilities: Float[Tensor, " subsets"]

    @property
    def num_elements(self) -> int:
        """Number n of elements of the ground set."""
        return self.utilities.shape[0].bit_length() - 1

    def log_partition(self) -> Float[Tensor, ""]:
        r"""Return $\log \sum_S e^{F(S)}$."""
        return self.utilities.logsumexp(0)

    def log_prob(self, subset: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
        """Return the log-probability of a subset.

        Args:
            subset: Whether each element is chosen, `(n,)`.
        """
        n = self.num_elements
        if not isinstance(subset, Tensor) or subset.dtype != torch.bool or subset.shape != (n,):
            given = f"{subset.dtype} {tuple(subset.shape)}" if isinstance(subset, Tensor) else type(subset).__name__
            raise InputError(f"subset must be boolean of shape ({n},), got {given}")
        bits = 2 ** torch.arange(n, device=subset.device)
        return self.utilities[(subset.long() * bits).sum()] - self.log_partition()

    def marginals(self, size: int | None = None) -> Float[Tensor, " n"]:
        """Return the exact probability that each element is chosen.

        Args:
            size: Size of the subset, on which the probabilities are conditioned; by default any.
        """
        subsets, utilities = self._of_size(size)
        return utilities.softmax(0) @ subsets.to(utilities.dtype)

    def log_odds(self) -> Float[Tensor, " n"]:
        """Return the exact log-odds that each element is chosen, accurate also where the probability rounds to one."""
        subsets = subsets_of(self.num_elements, self.utilities.device).T
        parts = [self.utilities[part].logsumexp(0) - self.utilities[~part].logsumexp(0) for part in subsets]
        return torch.stack(parts) if parts else self.utilities[:0]

    def best(self, size: int | None = None) -> Bool[Tensor, " n"]:
        """Return the most probable subset.

        Args:
            size: Size of the subset; by default any.
        """
        subsets, utilities = self._of_size(size)
        return subsets[utilities.argmax()]

    def _of_size(self, size: int | None) -> tuple[Tensor, Tensor]:
        """Return the subsets of a size with their utilities."""
        subsets = subsets_of(self.num_elements, self.utilities.device)
        if size is None:
            return subsets, self.utilities
        if not (is_whole(size) and 0 <= size <= self.num_elements):
            raise InputError(f"size must be between 0 and {self.num_elements}, got {size!r}")
        wanted = subsets.sum(1) == size
        return subsets[wanted], self.utilities[wanted]

    def extension(self, probabilities: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Return the multilinear extension: the mean utility of subsets of independent elements.

        Args:
            probabilities: Probability of each element, `(n,)`.
        """
        check_probabilities(probabilities, self.num_elements)
        return contracted(self.utilities[None], probabilities[None].to(self.utilities))[0][0]


def enumerate_subsets(utility: SetUtility, x: Float[Tensor, "n *shape"]) -> Enumeration:
    """Return the utilities of all subsets of one ground set.

    The cost is 2^n evaluations of the utility, so n may be at most 20.

    Args:
        utility: Utility.
        x: Elements of the ground set, `(n, ...)`.

    Raises:
        InputError: If the ground set has more than 20 elements.

    Example:
        >>> utility = SetUtility(torch.nn.Linear(3, 4), 4)
        >>> enumerate_subsets(utility, torch.randn(3, 3)).marginals().shape
        torch.Size([3])
    """
    if not isinstance(utility, SetUtility):
        raise InputError(f"utility must be a SetUtility, got {type(utility).__name__}")
    sets = utility.prepare(x)
    if len(sets.owner) > LARGEST:
        raise InputError(
            f"2^{len(sets.owner)} subsets are too many to enumerate; at most {LARGEST} elements, use MeanField"
        )
    return Enumeration(tables(utility, sets)[0][0])


def subsets_of(n: int, device: torch.device | None = None) -> Bool[Tensor, "subsets n"]:
    """Return all subsets of n elements, `(2^n, n)`, in the order of `Enumeration`.

    Args:
        n: Number of elements.
        device: Device of the result.
    """
    rows = torch.arange(2**n, device=device)
    return (rows[:, None] >> torch.arange(n, device=device)) & 1 > 0


def check_probabilities(given: Any, count: int | None = None, name: str = "probabilities") -> None:
    """Check that an argument holds a probability for each element.

    Args:
        given: Value of the argument.
        count: Number of elements; None for any.
        name: Name of the argument.
    """
    check_features(name, given)
    if given.dim() != 1 or count not in (None, len(given)):
        expected = "(n,)" if count is None else f"({count},)"
        raise InputError(f"{name} must have shape {expected}, one number for each element, got {tuple(given.shape)}")
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError(f"{name} must lie in 0..1")


def tables(utility: SetUtility, sets: GroundSets) -> list[Tensor]:
    """Return the utilities of all subsets, `(sets, 2^n)`, for each run of ground sets of equal size n.

    Args:
        utility: Utility.
        sets: Prepared ground sets, of at most 20 elements each.
    """
    found = []
    for features, (count, n) in zip(sets.blocks.split(sets.features, 1), sets.blocks.runs, strict=True):
        sizes = torch.full((count,), n, device=features.device)
        run = utility.grouped(features.flatten(0, 1), sizes)
        every = subsets_of(n, features.device).split(max(1, _CHUNK // max(1, count)))
        parts = [part.repeat(1, count) for part in every]
        if len(parts) > 1 and torch.is_grad_enabled():  # keeps the utilities alone, and computes each part again
            values = [checkpoint(utility.values, run, part, use_reentrant=False) for part in parts]
        else:
            values = [utility.values(run, part) for part in parts]
        found.append(torch.cat(values).T)
    return found


def enumerations(utility: SetUtility, sets: GroundSets) -> list[Enumeration]:
    """Return the enumeration of each ground set, in the order of the sets.

    Args:
        utility: Utility.
        sets: Prepared ground sets, of at most 20 elements each.
    """
    rows = [row for table in tables(utility, sets) for row in table]
    numbers = torch.arange(len(rows))[:, None].to(sets.blocks.sizes)
    order = torch.cat([part.flatten() for part in sets.blocks.split(numbers, 0)]).tolist()
    return [Enumeration(row) for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])]


def contracted(table: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the multilinear extension of tables of utilities, and its gradient.

    Args:
        table: Utilities of all subsets, `(sets, 2^n)`.
        probabilities: Probabilities of the elements, `(sets, n)`.

    Returns:
        Extension `(sets,)` and derivatives by the probabilities, `(sets, n)`.
    """
    count, n = probabilities.shape
    levels = [table]
    for i in range(n):  # element i is the lowest bit left
        pairs = levels[-1].reshape(count, 2 ** (n - 1 - i), 2)
        levels.append(torch.lerp(pairs[..., 0], pairs[..., 1], probabilities[:, i : i + 1]))
    adjoint = torch.ones_like(levels[-1])
    slopes: list[Tensor] = []
    for i in reversed(range(n)):
        pairs, p = levels[i].reshape(count, 2 ** (n - 1 - i), 2), probabilities[:, i : i + 1]
        slopes.append(((pairs[..., 1] - pairs[..., 0]) * adjoint).sum(1))
        adjoint = torch.stack([adjoint * (1 - p), adjoint * p], -1).flatten(1)
    gradient = torch.stack(slopes[::-1], 1) if n else torch.zeros_like(probabilities)
    return levels[-1][:, 0], gradient
