"""Linear maps between tensors over a set of nodes that commute with every permutation of the nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import is_whole, one_of, whole
from .._errors import InputError
from .arithmetic import promote_half

KEPT, SUMMED, FREE, ROOT = "ijk", "stu", "abc", "r"
MAX_ORDER = len(KEPT)


@dataclass(frozen=True)
class EquivariantMap:
    """Element of the diagram basis of the equivariant linear maps from order k to order l.

    Each axis of the input and of the output has a letter, as in `torch.einsum`. Letters i, j, k are kept: an entry of
    the output reads entries of the input with the same values. Letters s, t, u are averaged over. Letters a, b, c occur
    in the output only, which is constant along them. The letter r is the root. A letter that occurs twice on one side
    is a diagonal. For example, `is->ii` writes the means of the rows of a matrix on the diagonal, and `ij->ji`
    transposes.
    """

    source: str
    """Letters of the axes of the input; empty for a scalar."""
    target: str
    """Letters of the axes of the output; empty for a scalar."""

    def __post_init__(self) -> None:
        letters = {"source": KEPT + SUMMED + ROOT, "target": KEPT + FREE + ROOT}
        for name, known in letters.items():
            given = getattr(self, name)
            if not isinstance(given, str) or len(given) > MAX_ORDER or not set(given) <= set(known):
                raise InputError(f"{name} must have at most {MAX_ORDER} of the letters {known}, got {given!r}")
        if set(self.source) & set(KEPT) != set(self.target) & set(KEPT):
            raise InputError(
                f"source and target must keep the same letters of {KEPT}, got {self.source}->{self.target}"
            )

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"

    def dense(self, m: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "..."]:
        """Return the map as a tensor with the axes of the output first, `(m, ..., m)` with l + k axes.

        Args:
            m: Number of nodes. The root is node 0.
            dtype: Dtype of the tensor.
        """
        whole("m", m)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise InputError(f"dtype must be a floating-point dtype, got {dtype}")
        axes = self.target + self.source
        if not axes:
            return torch.ones((), dtype=dtype)
        where = torch.stack(torch.meshgrid(*[torch.arange(m)] * len(axes), indexing="ij"))
        entries = torch.ones((m,) * len(axes), dtype=torch.bool)
        for letter in set(axes):
            places = [p for p, other in enumerate(axes) if other == letter]
            entries &= (where[places] == where[places[0]]).all(0)
            if letter == ROOT:
                entries &= where[places[0]] == 0
        averaged = sum(letter in SUMMED for letter in set(self.source))
        return entries.to(dtype) / m**averaged


def _partitions(n: int) -> Iterator[tuple[int, ...]]:
    """Yield all set partitions of n axes, as the block of each axis in order of first occurrence."""
    labels: list[tuple[int, ...]] = [()]
    for _ in range(n):
        labels = [(*p, block) for p in labels for block in range(max(p, default=-1) + 2)]
    return iter(labels)


@lru_cache
def patterns(order: int, kept: int, rest: str, rooted: bool, ordered: bool) -> tuple[str, ...]:
    """Return the letters of the axes of a tensor, for all ways to identify axes and to keep some of them.

    Args:
        order: Number of axes.
        kept: Number of letters i, j, k.
        rest: Letters of the axes that are not kept: `SUMMED` or `FREE`.
        rooted: Whether one letter may be the root.
        ordered: Whether the kept letters appear in all orders, instead of alphabetically.
    """
    found = []
    for partition in _partitions(order):
        blocks = range(max(partition, default=-1) + 1)
        for root in [None, *blocks] if rooted else [None]:
            for chosen in combinations([b for b in blocks if b != root], kept):
                others = [b for b in blocks if b not in chosen and b != root]
                for arranged in permutations(chosen) if ordered else [chosen]:
                    letters = dict(zip(arranged, KEPT, strict=False)) | dict(zip(others, rest, strict=False))
                    found.append("".join(ROOT if b == root else letters[b] for b in partition))
    return tuple(found)


def check_order(name: str, order: object) -> None:
    """Check that the order of a tensor is supported."""
    if not is_whole(order) or not 0 <= order <= MAX_ORDER:  # type: ignore[operator]
        raise InputError(f"{name} must be one of 0, 1, 2, 3, got {order!r}")


def equivariant_basis(k: int, l: int, rooted: bool = False) -> tuple[EquivariantMap, ...]:  # noqa: E741
    """Return the diagram basis of the linear maps from order k to order l that commute with permutations of the nodes.

    A tensor of order k over m nodes has an entry for each k-tuple of nodes: order 0 holds scalars, order 1 features of
    nodes, order 2 features of pairs. The basis has one map for each set partition of the k + l axes, so their number is
    the Bell number of k + l (15 for k = l = 2). With a root, the maps commute with permutations that fix the root, and
    their number is the Bell number of k + l + 1 (52). For m < k + l nodes the maps are linearly dependent.

    Args:
        k: Order of the input, at most 3.
        l: Order of the output, at most 3.
        rooted: Whether one node is marked as the root.

    References:
        Maron et al. (2019), "Invariant and Equivariant Graph Networks".

    Example:
        >>> [str(e) for e in equivariant_basis(1, 1)]
        ['i->i', 's->a']
    """
    check_order("k", k)
    check_order("l", l)
    one_of("rooted", rooted, (False, True))
    return tuple(
        EquivariantMap(source, target)
        for kept in range(min(k, l), -1, -1)
        for target in patterns(l, kept, FREE, rooted, ordered=True)
        for source in patterns(k, kept, SUMMED, rooted, ordered=False)
    )


def reduced(known: dict[str, Tensor], pattern: str) -> Tensor:
    """Return the part of a tensor with an axis for each kept letter of a pattern, such as `is` for the means of rows.

    Args:
        known: Parts by their patterns, extended by the ones computed on the way. At the start it holds the tensor,
            `(blocks, m, ..., m, channels)`, under `KEPT[:order]`.
        pattern: Letters of the axes of the tensor, with kept letters in alphabetical order.
    """
    if pattern in known:
        return known[pattern]
    averaged = [letter for letter in SUMMED if letter in pattern]
    if not averaged:
        part = known[KEPT[: len(pattern)]]
        for axis, letter in reversed(list(enumerate(pattern))):
            if letter == ROOT:
                part = part.select(axis + 1, 0)
        letters = pattern.replace(ROOT, "")
        part = torch.einsum(f"x{letters}y->x{''.join(dict.fromkeys(letters))}y", part)
    else:
        # average a larger part over one more axis, so that no entry of the tensor is read twice
        letter = averaged[-1]
        kept = list(dict.fromkeys(p for p in pattern if p in KEPT + letter))
        axis, names = kept.index(letter) + 1, dict(zip(kept, KEPT, strict=False))
        larger = reduced(known, "".join(names.get(p, p) for p in pattern))
        part = promote_half(larger).sum(axis) / max(larger.shape[axis], 1)
    known[pattern] = part
    return part


def spread(part: Tensor, pattern: str, out: Tensor) -> None:
    """Add a part with an axis for each kept letter to the entries of a tensor that a pattern names, in place.

    Args:
        part: Values, `(blocks, m, ..., m, channels)` with an axis for each kept letter.
        pattern: Letters of the axes of `out`, such as `ai` to add the values to the columns.
        out: Tensor to add to, `(blocks, m, ..., m, channels)`.
    """
    letters = pattern
    for axis, letter in reversed(list(enumerate(pattern))):
        if letter == ROOT:
            out, letters = out.select(axis + 1, 0), letters[:axis] + letters[axis + 1 :]
    for letter in dict.fromkeys(pattern.replace(ROOT, "")):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            out = out.diagonal(0, first + 1, second + 1).movedim(-1, -2)
            letters = letters[:first] + letters[first + 1 : second] + letters[second + 1 :] + letter
    kept = sorted(p for p in letters if p in KEPT)
    part = part.permute(0, *[1 + kept.index(p) for p in letters if p in KEPT], part.dim() - 1)
    shape = iter(part.shape[1:-1])
    out.add_(part.reshape(part.shape[0], *[next(shape) if p in KEPT else 1 for p in letters], part.shape[-1]))
