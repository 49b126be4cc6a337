"""Given functions of subsets: their multilinear extension, and facility location."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import check_features, check_generator, whole
from .._errors import InputError
from ..laws import obeys
from ._enumeration import check_probabilities, contracted, subsets_of
from ._law_cases import similarity_of_rows

_EXACT = 16
_CHUNK = 1 << 22  # most entries of the masks evaluated at once


@runtime_checkable
class SetFunction(Protocol):
    """Function of subsets: a callable from booleans `(..., n)` to values `(...)`.

    A function may also have a method `marginal_gains(subsets)` that returns $f(S + i) - f(S - i)$ of all elements,
    `(..., n)`, and a method `extension(probabilities)` that returns the multilinear extension in closed form.
    """

    def __call__(self, subsets: Bool[Tensor, "*batch n"], /) -> Float[Tensor, "*batch"]:
        """Return the value of each subset.

        Args:
            subsets: Whether each element is chosen.
        """
        ...


@obeys("equivariance to order", lambda draw: similarity_of_rows(draw, FacilityLocation))
class FacilityLocation:
    r"""Monotone submodular function $f(S) = \sum_r \max_{i \in S} w_{ri}$, which is zero for the empty set.

    It measures how well the chosen elements represent all rows. Gains and the multilinear extension have closed forms.

    Args:
        similarity: Non-negative similarity $w_{ri}$ of each row to each element, `(rows, n)`.

    Raises:
        InputError: If a similarity is negative or not finite.

    Example:
        >>> f = FacilityLocation(torch.tensor([[1.0, 0.5], [0.0, 2.0]]))
        >>> f(torch.tensor([[True, False], [True, True]]))
        tensor([1., 3.])
    """

    def __init__(self, similarity: Float[Tensor, "rows n"]) -> None:
        check_features("similarity", similarity)
        if similarity.dim() != 2 or not similarity.numel():
            raise InputError(f"similarity must have shape (rows, n), got {tuple(similarity.shape)}")
        if not bool(similarity.isfinite().all()) or bool((similarity < 0).any()):
            raise InputError("similarity must be finite and non-negative; shift it by its minimum")
        self.similarity = similarity
        self._sorted, self._order = similarity.sort(1, descending=True)

    def __call__(self, subsets: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        values = [self._two_best(mask)[0][:, 0].sum() for mask in self._masks(subsets)]
        return (torch.stack(values) if values else self.similarity[:0, 0]).reshape(subsets.shape[:-1])

    def marginal_gains(self, subsets: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Return $f(S \cup \{i\}) - f(S \setminus \{i\})$ of all elements.

        Args:
            subsets: Whether each element is chosen, `(..., n)`.
        """
        gains = []
        for mask in self._masks(subsets):
            best, element = self._two_best(mask)
            added = (self.similarity - best[:, :1]).clamp(min=0).sum(0)
            lost = torch.zeros_like(added).index_add(0, element, best[:, 0] - best[:, 1])
            gains.append(torch.where(mask, lost, added))
        return (torch.stack(gains) if gains else self.similarity[:0]).reshape(subsets.shape)

    def extension(self, probabilities: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Return the multilinear extension in closed form: the mean over subsets of independent elements.

        Args:
            probabilities: Probability of each element, `(..., n)`.
        """
        if probabilities.shape[-1:] != self.similarity.shape[1:]:
            raise InputError(
                f"probabilities must have shape (..., {self.similarity.shape[1]}), got {tuple(probabilities.shape)}"
            )
        p = probabilities[..., self._order]
        missed = torch.nn.functional.pad((1 - p)[..., :-1], (1, 0), value=1.0).cumprod(-1)
        return (self._sorted * p * missed).sum((-2, -1))

    def _masks(self, subsets: Tensor) -> Tensor:
        """Return subsets as `(subsets, n)`; they are evaluated one by one, as similarities of each would not fit."""
        n = self.similarity.shape[1]
        if subsets.dtype != torch.bool or subsets.shape[-1:] != (n,):
            given = f"{subsets.dtype} of shape {tuple(subsets.shape)}"
            raise InputError(f"subsets must be boolean of shape (..., {n}), got {given}")
        return subsets.reshape(subsets.shape[:-1].numel(), n)

    def _two_best(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two largest similarities of each row to chosen elements, and the element of the first."""
        chosen = torch.nn.functional.pad(torch.where(mask, self.similarity, 0.0), (0, 1))
        found = chosen.topk(2, 1)
        return found.values, found.indices[:, 0].clamp(max=len(mask) - 1)


def multilinear_extension(
    function: SetFunction,
    probabilities: Float[Tensor, " n"],
    n_samples: int | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    r"""Return the multilinear extension of a set function: $\mathbb E\, f(S)$, where S holds i with probability $p_i$.

    It equals f at subsets, is affine in each probability, and is differentiable.

    Args:
        function: Set function.
        probabilities: Probability of each element, in 0..1, `(n,)`.
        n_samples: Number of sampled subsets, for an unbiased estimate of value and gradient. By default the value is
            exact: in closed form if the function has a method `extension`, else by enumeration of at most 16 elements.
        generator: Source of randomness; by default torch's global generator.

    Raises:
        InputError: If there are more than 16 elements and neither a closed form nor a number of samples is given.

    Example:
        >>> f = FacilityLocation(torch.eye(3))
        >>> multilinear_extension(f, torch.tensor([0.5, 1.0, 0.0]))
        tensor(1.5000)
    """
    check_probabilities(probabilities)
    p = probabilities
    if n_samples is None and hasattr(function, "extension"):
        return function.extension(p)  # type: ignore[no-any-return]
    if n_samples is None:
        return contracted(_all_values(function, p), p[None])[0][0]
    whole("n_samples", n_samples)
    subsets = _drawn(p, n_samples, generator)
    value = values_of(function, subsets).mean().to(p)
    if not p.requires_grad:
        return value
    slopes = gains_of(function, subsets).mean(0).to(p)
    return value + (slopes * (p - p.detach())).sum()


def multilinear_gradient(
    function: SetFunction,
    probabilities: Tensor,
    n_samples: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Return the derivatives of the multilinear extension, `(n,)`.

    Args:
        function: Set function.
        probabilities: Probability of each element.
        n_samples: Number of sampled subsets; None for exact derivatives.
        generator: Source of randomness.
    """
    p = probabilities.detach()
    if n_samples is None and hasattr(function, "extension"):
        with torch.enable_grad():
            p = p.clone().requires_grad_()
            (slopes,) = torch.autograd.grad(function.extension(p), p)
        return slopes
    if n_samples is None:
        return contracted(_all_values(function, p), p[None])[1][0]
    return gains_of(function, _drawn(p, n_samples, generator)).mean(0).to(p)


def values_of(function: SetFunction, subsets: Tensor) -> Tensor:
    """Return the values of subsets, after a check of their shape.

    Args:
        function: Set function.
        subsets: Booleans, `(subsets, n)`.
    """
    parts = []
    for part in subsets.split(max(1, _CHUNK // max(1, subsets.shape[1]))):
        found = function(part)
        if not isinstance(found, Tensor) or found.shape != part.shape[:1]:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"function must return shape ({len(part)},) for subsets {tuple(part.shape)}, got {given}")
        if not bool(found.isfinite().all()):
            raise InputError("function returned NaN or an infinite value")
        parts.append(found.detach().double())
    return torch.cat(parts)


def gains_of(function: SetFunction, subsets: Tensor) -> Tensor:
    """Return the marginal gains of all elements, `(subsets, n)`.

    Args:
        function: Set function.
        subsets: Booleans, `(subsets, n)`.
    """
    if hasattr(function, "marginal_gains"):
        gains = function.marginal_gains(subsets).detach().double()
        if gains.shape != subsets.shape or not bool(gains.isfinite().all()):
            raise InputError(f"marginal_gains must return finite values of shape {tuple(subsets.shape)}")
        return gains  # type: ignore[no-any-return]
    n = subsets.shape[1]
    toggled = subsets[:, None] ^ torch.eye(n, dtype=torch.bool, device=subsets.device)
    now, other = values_of(function, subsets), values_of(function, toggled.flatten(0, 1)).reshape(-1, n)
    return torch.where(subsets, now[:, None] - other, other - now[:, None])


def _drawn(probabilities: Tensor, n_samples: int, generator: torch.Generator | None) -> Tensor:
    check_generator(generator)
    device = probabilities.device
    shape, source = (n_samples, len(probabilities)), device if generator is None else generator.device
    noise = torch.rand(shape, generator=generator, device=source, dtype=torch.float64).to(device)
    return noise < probabilities.detach()


def _all_values(function: SetFunction, probabilities: Tensor) -> Tensor:
    n = len(probabilities)
    if n > _EXACT:
        raise InputError(
            f"the exact extension enumerates the subsets of at most {_EXACT} elements, got {n}; give n_samples, or a "
            "function with a method extension"
        )
    return values_of(function, subsets_of(n, probabilities.device))[None].to(probabilities)
