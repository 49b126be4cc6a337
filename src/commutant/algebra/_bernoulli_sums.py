"""Sizes of random subsets: sums of independent Bernoulli variables, and subsets of a given size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from .._checks import check_features, check_generator, is_whole, whole
from .._errors import InputError

_NEVER = -1e300  # stands for -inf, whose sums would have undefined gradients


def poisson_binomial(logits: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch sizes"]:
    r"""Return the log-probabilities that 0, 1, ..., n of n independent events occur.

    The recursion over events runs in float64 on logarithms, so that tails of small probability keep their relative
    accuracy. An event with logit `-inf` never occurs, so sets of different sizes can be padded by it.

    Args:
        logits: Logits of the probabilities of the events, `(..., n)`.

    Returns:
        Log-probabilities, `(..., n + 1)`.

    Raises:
        InputError: If a logit is NaN, or not a real floating-point number.

    Example:
        >>> poisson_binomial(torch.zeros(2)).exp()
        tensor([0.2500, 0.5000, 0.2500])
    """
    wide = _checked(logits)
    one, zero = (logsigmoid(t).clamp(min=_NEVER) for t in (wide, -wide))
    (last,) = deque(_log_coefficients(one, zero, logits.shape[-1]), maxlen=1)  # the others are not kept
    return _finished(last, logits.dtype)


def _log_coefficients(one: Tensor, zero: Tensor, degree: int) -> Iterator[Tensor]:
    r"""Yield the logarithms of the coefficients of $\prod_i (e^{b_i} + e^{a_i} z)$ after each number of factors.

    Args:
        one: Logarithms $a_i$, `(..., n)`, finite.
        zero: Logarithms $b_i$, `(..., n)`, finite.
        degree: Largest degree.

    Yields:
        n + 1 tensors; the i-th has shape `(..., min(i, degree) + 1)`.
    """
    found = one.new_zeros((*one.shape[:-1], 1))
    yield found
    for i in range(one.shape[-1]):
        kept, taken = found + zero[..., i : i + 1], found + one[..., i : i + 1]
        middle = torch.logaddexp(kept[..., 1:], taken[..., :-1])
        top = taken[..., -1:] if kept.shape[-1] <= degree else taken[..., :0]
        found = torch.cat([kept[..., :1], middle, top], -1)
        yield found


class ConditionalBernoulli:
    r"""Distribution of subsets of a given size: independent Bernoulli variables, conditioned on their sum.

    $$P(S \mid |S| = k) = \frac{\prod_{i \in S} e^{l_i}}{e_k(e^{l_1}, \dots, e^{l_n})}.$$

    Adding a constant to all logits changes nothing, so a loss based on `log_prob` does not depend on their calibration.
    All computations run in float64, in n steps of cost k.

    Args:
        logits: Logits $l_i$, `(..., n)`; `-inf` for elements that are never chosen.
        size: Size k of the subsets, the same for all rows, at least 0 and at most n.

    Raises:
        InputError: If a logit is NaN or `inf`, or the size is larger than the number of elements that can be chosen.

    Example:
        >>> subsets = ConditionalBernoulli(torch.zeros(4), 2)
        >>> subsets.marginals()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    def __init__(self, logits: Float[Tensor, "*batch n"], size: int) -> None:
        wide = _checked(logits)
        if bool((wide == torch.inf).any()):
            raise InputError("logits of a subset of a given size must be below inf; drop certain elements, lower size")
        possible = int((wide > -torch.inf).sum(-1).min()) if wide.numel() else wide.shape[-1]
        if not is_whole(size):
            raise InputError(f"size must be a whole number, one for all rows, got {size!r}")
        if not 0 <= size <= possible:
            raise InputError(f"size must be between 0 and the {possible} elements that can be chosen, got {size}")
        self.logits, self.size = logits, int(size)
        # a shift of a row changes nothing, and keeps sums small
        self._one = (wide - wide.detach().amax(-1, keepdim=True) if possible else wide).clamp(min=_NEVER)

    def log_prob(self, subset: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Return the log-probability of each subset; `-inf` if it has another size.

        Args:
            subset: Whether each element is chosen, `(..., n)`.
        """
        try:
            fits = subset.dtype == torch.bool and subset.shape[-1:] == self.logits.shape[-1:]
            torch.broadcast_shapes(subset.shape, self.logits.shape)
        except (AttributeError, RuntimeError):
            fits = False
        if not fits:
            given = f"{subset.dtype} {tuple(subset.shape)}" if isinstance(subset, Tensor) else type(subset).__name__
            raise InputError(f"subset must be boolean of shape {tuple(self.logits.shape)}, got {given}")
        total = self._coefficients(self._one)[-1][..., self.size]
        score = torch.where(subset, self._one, 0.0).sum(-1)
        return _finished(torch.where(subset.sum(-1) == self.size, score - total, _NEVER), self.logits.dtype)

    def marginals(self) -> Float[Tensor, "*batch n"]:
        """Return the probability that each element is chosen; its sum is `size`."""
        if not self.size:
            return torch.zeros_like(self.logits)
        before, after = self._coefficients(self._one), self._coefficients(self._one.flip(-1))
        total, n, others = before[-1][..., self.size], self.logits.shape[-1], self.size - 1
        found = []
        for i in range(n):
            a, b = before[i], after[n - 1 - i]  # of the elements before i, and of those after it
            low, high = max(0, others - (b.shape[-1] - 1)), min(others, a.shape[-1] - 1)
            pairs = a[..., low : high + 1] + b[..., others - high : others - low + 1].flip(-1)
            found.append(self._one[..., i] + pairs.logsumexp(-1) - total)
        return torch.stack(found, -1).exp().to(self.logits.dtype)

    def sample(
        self, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Bool[Tensor, "num_samples *batch n"]:
        """Draw subsets.

        Args:
            num_samples: Number of independent subsets.
            generator: Source of randomness; by default torch's global generator.
        """
        whole("num_samples", num_samples)
        check_generator(generator)
        logits = self._one.detach()
        sums, device = self._coefficients(logits), logits.device
        left = torch.full((num_samples, *logits.shape[:-1]), self.size, device=device)
        source = device if generator is None else generator.device
        shape = (num_samples, *logits.shape)
        noise = torch.rand(shape, generator=generator, dtype=torch.float64, device=source).to(device)
        chosen = torch.zeros(shape, dtype=torch.bool, device=device)
        for i in reversed(range(logits.shape[-1])):
            before, after = (
                pad(t, (1, self.size + 1 - t.shape[-1]), value=-torch.inf).expand(*left.shape, self.size + 2)
                for t in (sums[i], sums[i + 1])
            )  # shifted by one: there is no way to choose -1 elements
            ways = before.gather(-1, left[..., None]) + logits[..., i : i + 1]
            taken = noise[..., i].log() < (ways - after.gather(-1, left[..., None] + 1))[..., 0]
            chosen[..., i], left = taken, left - taken.long()
        return chosen

    def _coefficients(self, one: Tensor) -> list[Tensor]:
        return list(_log_coefficients(one, torch.zeros_like(one), self.size))


def _checked(logits: Tensor) -> Tensor:
    check_features("logits", logits)
    if logits.dim() < 1:
        raise InputError("logits must have an axis of elements, got a single number")
    if bool(logits.isnan().any()):
        raise InputError("logits hold NaN; drop or repair them")
    return logits.double()


def _finished(found: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(found <= _NEVER / 2, -torch.inf, found).to(dtype)
