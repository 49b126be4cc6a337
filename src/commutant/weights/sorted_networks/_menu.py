"""Menus of budgets: the sub-networks that a sorted network is trained for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import ceil
from typing import Any

from ..._errors import InputError

Value = int | float


class Budget(Mapping[str, Value]):
    """Size of a sub-network along each dimension: counts (integers) or shares (fractions up to 1.0).

    Args:
        sizes: Size by the name of the dimension.

    Example:
        >>> budget = Budget({"depth": 2, "width": 0.5})
        >>> budget["depth"], budget.within({"depth": 2, "width": 1.0})
        (2, True)
    """

    def __init__(self, sizes: Mapping[str, Value]) -> None:
        self._sizes = dict(sizes)

    def __getitem__(self, name: str) -> Value:
        return self._sizes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __hash__(self) -> int:
        return hash(frozenset(self._sizes.items()))

    def within(self, other: Mapping[str, Value]) -> bool:
        """Return whether this budget is at most another one in every dimension.

        Args:
            other: Budget of the same dimensions.
        """
        return all(self[name] <= other[name] for name in self)

    def meet(self, other: Mapping[str, Value]) -> Budget:
        """Return the smaller of two budgets, dimension by dimension: what both sub-networks hold.

        Args:
            other: Budget of the same dimensions.
        """
        return Budget({name: min(value, other[name]) for name, value in self.items()})

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.items())

    def __repr__(self) -> str:
        return f"Budget({self})"


class Menu(Sequence[Budget]):
    """Budgets that a sorted network is trained for, smaller ones before those that contain them.

    Build one with `Menu.product` or `Menu.chain`. In each dimension, sizes are either counts, such as 3 of 4 blocks, or
    shares, such as 0.25 of the channels of each layer.

    Args:
        budgets: Budgets of the same dimensions.

    Raises:
        InputError: There is no budget, one occurs twice, dimensions differ, or a size is not positive.

    Example:
        >>> menu = Menu.product(depth=[1, 2], width=[0.5, 1.0])
        >>> len(menu), menu[0]
        (4, Budget(depth=1, width=0.5))
    """

    def __init__(self, budgets: Sequence[Mapping[str, Value]]) -> None:
        if isinstance(budgets, str | Mapping) or not isinstance(budgets, Sequence) or not budgets:
            raise InputError(f"a menu needs a list of budgets, got {budgets!r:.80}")
        for budget in budgets:
            if not isinstance(budget, Mapping) or not budget or set(budget) != set(budgets[0]):
                raise InputError(f"each budget must size the dimensions {list(budgets[0])}, got {budget!r:.80}")
        self.dimensions: tuple[str, ...] = tuple(budgets[0])
        found = [Budget({name: budget[name] for name in self.dimensions}) for budget in budgets]
        self.sizes = {name: _sizes(name, [b[name] for b in found]) for name in self.dimensions}
        if twice := next((b for b in found if found.count(b) > 1), None):
            raise InputError(f"the budget {twice} is twice in the menu")
        self._budgets = tuple(sorted(found, key=lambda b: [self.sizes[name].index(b[name]) for name in b]))

    @classmethod
    def product(cls, /, **sizes: Sequence[Value]) -> Menu:
        """Return the menu of all combinations of sizes.

        Args:
            sizes: Sizes of each dimension by its name.

        Raises:
            InputError: A dimension has no size, or a size twice.
        """
        if not sizes:
            raise InputError("a menu needs a dimension, such as width=[0.25, 0.5, 1.0]")
        for name, own in sizes.items():
            if isinstance(own, str) or not isinstance(own, Sequence) or not own:
                raise InputError(f"the sizes of {name!r} must be a list such as [0.25, 0.5, 1.0], got {own!r:.60}")
            if len(_sizes(name, own)) != len(own):
                raise InputError(f"the sizes of {name!r} must be different, got {list(own)}")
        return cls([dict(zip(sizes, chosen, strict=True)) for chosen in product(*sizes.values())])

    @classmethod
    def chain(cls, budgets: Sequence[Mapping[str, Value]]) -> Menu:
        """Return a menu in which each budget contains the one before.

        Args:
            budgets: Budgets, smallest first.

        Raises:
            InputError: A budget does not contain the one before.
        """
        menu = cls(budgets)
        for small, large in pairwise(map(Budget, budgets)):
            if not small.within(large):
                raise InputError(f"the budgets of a chain must be nested, but {small} is not within {large}")
        return menu

    def __getitem__(self, index: Any) -> Any:
        return self._budgets[index]

    def __len__(self) -> int:
        return len(self._budgets)

    def named(self, budget: Mapping[str, Value]) -> Budget:
        """Return the budget of the menu with the given sizes.

        Args:
            budget: Size by dimension. Dimensions left out have their largest size.

        Raises:
            InputError: A dimension is unknown, or the menu lacks the budget.
        """
        if not isinstance(budget, Mapping):
            raise InputError(f"a budget must be a mapping from dimensions to sizes, got {budget!r:.60}")
        if unknown := set(budget) - set(self.dimensions):
            raise InputError(f"there is no dimension {min(unknown, key=str)!r}; known are {', '.join(self.dimensions)}")
        wanted = {name: budget.get(name, self.sizes[name][-1]) for name in self.dimensions}
        for known in self:
            if all(known[name] == value for name, value in wanted.items()):
                return known
        sizes = "; ".join(f"{name} {', '.join(map(str, own))}" for name, own in self.sizes.items())
        got = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise InputError(f"the menu has no budget {got}; its sizes are {sizes}")


def _sizes(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the sizes of a dimension, smallest first: counts, or shares where one has a fraction."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"a size of {name!r} must be a count or a share, got {value!r:.60}")
    shares = any(isinstance(v, float) for v in values)
    if shares and not all(isinstance(v, float) for v in values):
        raise InputError(f"the sizes of {name!r} mix counts and shares, {sorted(set(values))}: write 1.0 for all of it")
    for value in values:
        if not value > 0 or (shares and value > 1):
            limits = "above 0 and at most 1.0" if shares else "at least 1"
            raise InputError(f"a size of {name!r} must be {limits}, got {value}")
    return tuple(sorted(set(values)))


def kept(value: Value, size: int) -> int:
    """Return how many of `size` entries a size keeps: the count, or the share rounded up.

    Args:
        value: Count or share.
        size: Number of entries.
    """
    return value if isinstance(value, int) else max(1, ceil(round(value * size, 9)))
