"""Sizes of random subsets: sums of independent Bernoulli variables, and subsets of a given size."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import check_features, check_generator, is_whole, whole
from .._errors import InputError

_CERTAIN = 1e4  # logits beyond this bound are cut: sums of -inf would have undefined gradients


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
    cut = _checked(logits)
    sums = log_symmetric_polynomials(cut, logits.shape[-1])[-1]
    return (sums + torch.nn.functional.logsigmoid(-cut).sum(-1, keepdim=True)).to(logits.dtype)


def log_symmetric_polynomials(logits: Tensor, degree: int) -> list[Tensor]:
    r"""Return $\log e_k(e^{l_1}, \dots, e^{l_i})$ for k up to `degree`, after each number i of variables.

    Args:
        logits: Logarithms of the variables, `(..., n)`.
        degree: Largest degree.

    Returns:
        n + 1 tensors; the i-th has shape `(..., min(i, degree) + 1)`.
    """
    found = [logits.new_zeros((*logits.shape[:-1], 1))]
    for i in range(logits.shape[-1]):
        old, taken = found[-1], found[-1] + logits[..., i : i + 1]
        middle = torch.logaddexp(old[..., 1:], taken[..., :-1])
        top = taken[..., -1:] if old.shape[-1] <= degree else taken[..., :0]
        found.append(torch.cat([old[..., :1], middle, top], -1))
    return found


class ConditionalBernoulli:
    r"""Distribution of subsets of a given size: independent Bernoulli variables, conditioned on their sum.

    $$P(S \mid |S| = k) = \frac{\prod_{i \in S} e^{l_i}}{e_k(e^{l_1}, \dots, e^{l_n})}.$$

    Adding a constant to all logits changes nothing, so a loss based on `log_prob` does not depend on their calibration.
    All computations run in float64, in n steps of cost k.

    Args:
        logits: Logits $l_i$, `(..., n)`; `-inf` for elements that are never chosen.
        size: Size k of the subsets, at least 0 and at most n.

    Raises:
        InputError: If a logit is NaN, or the size is out of range or larger than the number of possible elements.

    Example:
        >>> subsets = ConditionalBernoulli(torch.zeros(4), 2)
        >>> subsets.marginals()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    def __init__(self, logits: Float[Tensor, "*batch n"], size: int) -> None:
        cut = _checked(logits)
        possible = int((logits > -torch.inf).sum(-1).min()) if logits.numel() else logits.shape[-1]
        if not is_whole(size) or not 0 <= size <= possible:
            raise InputError(f"size must be between 0 and the {possible} elements that can be chosen, got {size!r}")
        self.logits, self.size, self._cut = logits, size, cut

    def log_prob(self, subset: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Return the log-probability of each subset; `-inf` if it has another size.

        Args:
            subset: Whether each element is chosen, `(..., n)`.
        """
        if subset.dtype != torch.bool or subset.shape[-1] != self.logits.shape[-1]:
            raise InputError(
                f"subset must be boolean of shape (..., {self.logits.shape[-1]}), got {subset.dtype} of shape "
                f"{tuple(subset.shape)}"
            )
        total = log_symmetric_polynomials(self._cut, self.size)[-1][..., self.size]
        score = torch.where(subset, self._cut, 0.0).sum(-1)
        found = torch.where(subset.sum(-1) == self.size, score - total, -torch.inf)
        return found.to(self.logits.dtype)

    def marginals(self) -> Float[Tensor, "*batch n"]:
        """Return the probability that each element is chosen; its sum is `size`."""
        with torch.enable_grad():
            cut = self._cut if self._cut.requires_grad else self._cut.detach().requires_grad_()
            total = log_symmetric_polynomials(cut, self.size)[-1][..., self.size].sum()
            if not self.size:
                return torch.zeros_like(self.logits)
            (found,) = torch.autograd.grad(total, cut, create_graph=self._cut.requires_grad)
        return found.to(self.logits.dtype)

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
        logits = self._cut.detach()
        sums = log_symmetric_polynomials(logits, self.size)
        left = torch.full((num_samples, *logits.shape[:-1]), self.size, device=logits.device)
        noise = torch.rand((num_samples, *logits.shape), generator=generator, dtype=torch.float64, device=logits.device)
        chosen = torch.zeros(noise.shape, dtype=torch.bool, device=logits.device)
        for i in reversed(range(logits.shape[-1])):
            before, after = (
                torch.nn.functional.pad(t, (1, self.size + 1 - t.shape[-1]), value=-torch.inf).expand(
                    *left.shape, self.size + 2
                )
                for t in (sums[i], sums[i + 1])
            )  # shifted by one: the number of ways to choose -1 elements is zero
            ways = before.gather(-1, left[..., None]) + logits[..., i : i + 1]
            taken = noise[..., i].log() < (ways - after.gather(-1, left[..., None] + 1))[..., 0]
            chosen[..., i], left = taken, left - taken.long()
        return chosen


def _checked(logits: Tensor) -> Tensor:
    check_features("logits", logits)
    if logits.dim() < 1:
        raise InputError("logits must have an axis of elements, got a single number")
    if bool(logits.isnan().any()):
        raise InputError("logits hold NaN; drop or repair them")
    return logits.double().clamp(-_CERTAIN, _CERTAIN)
