"""Mean-field inference of the probability that each element of a ground set is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .._checks import check_features, check_generator, is_real, one_of, positive, whole
from .._errors import InputError
from ..algebra import ReductionPlan
from ..algebra.arithmetic import promote_half
from ..laws import BatchIndependence, Equivariance, SetPermutation, obeys
from ._enumeration import LARGEST, check_probabilities, contracted, tables
from ._law_cases import added_function_of_the_ground_set, inclusion_probabilities
from ._layout import layout_of
from ._mean_gains import ExactGains, MixedGains, SampledGains, at_fixed_point
from ._set_utility import GroundSets, SetUtility
from ._subsets import largest_of_each_set

Mode: TypeAlias = Literal["parallel", "damped", "coordinate"]
Grad: TypeAlias = Literal["last", "unroll", "implicit"]
_FIXED = 1e-3  # largest residual at which the implicit gradient is that of the fixed point


@dataclass(frozen=True, eq=False)
class Marginals:
    """Independent inclusion probabilities of elements, with a certificate of the fixed point.

    Attributes:
        logits: Logit of the probability of each element, `(elements,)`.
        residual: Largest difference between the two sides of the fixed-point equation, before the last step, `(sets,)`;
            with `only`, over those elements, and NaN without any. For sampled sets it is the equation of the drawn
            subsets, which differs from the exact one by sampling noise.
        two_cycle: Whether two successive steps of a set nearly canceled each other, as in an alternation between two
            points, `(sets,)`. Its later steps were halved.
        iterations: Number of iterations that were run.
    """

    logits: Float[Tensor, " elements"]
    residual: Float[Tensor, " sets"]
    two_cycle: Bool[Tensor, " sets"]
    iterations: int

    @property
    def probabilities(self) -> Float[Tensor, " elements"]:
        """Probability that each element is chosen, `(elements,)`."""
        return self.logits.sigmoid()


@obeys(
    "equivariance to order",
    lambda draw: inclusion_probabilities(draw, MeanField, SetUtility, Equivariance(SetPermutation())),
)
@obeys("batch independence", lambda draw: inclusion_probabilities(draw, MeanField, SetUtility, BatchIndependence()))
@obeys(
    "cancellation of a function of the ground set",
    lambda draw: added_function_of_the_ground_set(draw, MeanField, SetUtility),
    tolerance={torch.float32: 1e-3},  # the sides agree exactly, but rounding of either hides smaller differences
)
class MeanField(nn.Module):
    r"""Mean-field inference for $p(S \mid V) \propto e^{F(S; V)}$ by a fixed-point iteration.

    $$\psi_i \leftarrow \sigma\Big(\mathbb E_{S \sim \psi}\big[F(S \cup \{i\}) - F(S \setminus \{i\})\big]\Big).$$

    The expectation is exact for ground sets of at most `exact_below` elements, by enumeration of all subsets. For
    larger ones it is a mean over sampled subsets, which all elements share. All iterations share them too, except in
    training with `grad="unroll"`, whose gradient needs independent ones.

    Args:
        utility: Utility F.
        n_iter: Largest number of iterations; the iteration stops earlier where every residual is below `tolerance`.
        n_samples: Number of sampled subsets.
        mode: `"parallel"` updates all elements at once; a set that alternates between two points is damped.
            `"damped"` moves logits by half of the step from the start. `"coordinate"` updates one element after the
            other, which never lowers the evidence lower bound; it needs exact expectations.
        grad: What is differentiated. `"last"`: the last iteration, with its starting point held fixed, as in the
            published code. `"unroll"`: all iterations; sampled subsets then use the score-function estimator.
            `"implicit"`: the fixed point, by the implicit function theorem; it needs exact expectations and an
            iteration that has converged.
        exact_below: Largest ground set whose subsets are enumerated, at most 20; 0 for none. The cost of a set is $2^n$
            evaluations, so lower it for training on many sets.
        tolerance: Residual at which the iteration stops.

    Shapes:
        x `(elements, ...)` to probabilities `(elements,)`.

    Raises:
        InputError: If an argument is not valid, or sampled expectations meet a mode or gradient that needs exact ones.

    References:
        Ou et al. (2022), "Learning Neural Set Functions Under the Optimal Subset Oracle", section 3.

    Example:
        >>> utility = SetUtility(torch.nn.Linear(3, 16), 16, 32)
        >>> found = MeanField(utility, n_iter=50)(torch.randn(6, 3))
        >>> found.probabilities.shape, found.residual.shape
        (torch.Size([6]), torch.Size([1]))
    """

    def __init__(
        self,
        utility: SetUtility,
        n_iter: int = 1,
        n_samples: int = 5,
        *,
        mode: Mode = "parallel",
        grad: Grad = "last",
        exact_below: int = 16,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__()
        if not isinstance(utility, SetUtility):
            raise InputError(f"utility must be a SetUtility, got {type(utility).__name__}")
        whole("n_iter", n_iter)
        whole("n_samples", n_samples)
        whole("exact_below", exact_below, 0)
        one_of("mode", mode, ("parallel", "damped", "coordinate"))
        one_of("grad", grad, ("last", "unroll", "implicit"))
        positive("tolerance", tolerance)
        if exact_below > LARGEST:
            raise InputError(f"exact_below must be at most {LARGEST}, as 2^n subsets are enumerated, got {exact_below}")
        if grad == "implicit" and tolerance > _FIXED:
            raise InputError(f"grad='implicit' needs a tolerance of at most {_FIXED}, got {tolerance}")
        if mode == "coordinate" and grad != "last":
            raise InputError(
                f"mode='coordinate' is differentiated through its last update; use grad='last', not {grad!r}"
            )
        self.utility, self.n_iter, self.n_samples = utility, n_iter, n_samples
        self.mode, self.grad, self.exact_below, self.tolerance = mode, grad, exact_below, tolerance

    def forward(
        self,
        x: Float[Tensor, "elements *shape"],
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_sets: int | None = None,
        *,
        start: float | Float[Tensor, " elements"] = 0.5,
        only: Bool[Tensor, " elements"] | None = None,
        uniforms: Float[Tensor, "samples elements"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Marginals:
        """Return the inclusion probabilities of all elements.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            index: Index of the set of each element, in any order, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`. Without `index` and `ptr`, all elements are one set.
            num_sets: Number of sets; by default inferred.
            start: Probabilities at which the iteration starts, between 0 and 1; it is never differentiated.
            only: Elements whose probabilities are needed after the last iteration; those of the others are the start of
                that iteration. A loss on a few elements of a large ground set costs less so.
            uniforms: Uniform numbers in 0..1 from which subsets are drawn, `(n_samples, elements)`; by default drawn.
                In evaluation mode they depend on the position in the set alone, so that a result does not depend on the
                batch; another order of the elements then changes it by sampling noise.
            generator: Source of randomness; by default torch's global generator.
        """
        check_generator(generator)
        sets = self.utility.prepare(x, index, ptr, num_sets)
        logits = sets.sort(_start_logits(start, sets))
        if uniforms is not None:
            _check_uniforms(uniforms, (self.n_samples, len(sets.owner)))
        sampled, update = self._update(sets, uniforms, generator)
        if sampled and (self.mode == "coordinate" or self.grad == "implicit"):
            needs = "mode='coordinate'" if self.mode == "coordinate" else "grad='implicit'"
            largest = int(sets.blocks.sizes.max())
            raise InputError(
                f"{needs} needs exact expectations, and a set has {largest} elements with exact_below="
                f"{self.exact_below}; use mode='parallel' with grad='last' or 'unroll' for larger sets"
            )
        wanted = None if only is None else _read_only(only, sets)
        logits, residual, cycles, count = self._iterate(sets, logits, update, wanted)
        return Marginals(sets.unsort(logits).to(sets.features.dtype), residual, cycles, count)

    def loss(
        self,
        x: Float[Tensor, "elements *shape"],
        target: Bool[Tensor, " elements"],
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_sets: int | None = None,
        *,
        negatives: float | None = 1.0,
        start: float | Float[Tensor, " elements"] = 0.5,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        r"""Return the negative log-likelihood of optimal subsets under the inclusion probabilities, a mean over sets.

        With `negatives`, only that many unchosen elements are drawn for each chosen one, at least one a set. Classes
        are then balanced, so that the probabilities are too large; `SubsetSelector` calibrates them afterwards.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            target: Whether each element is in the optimal subset, `(elements,)`.
            index: Index of the set of each element, in any order, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`.
            num_sets: Number of sets; by default inferred.
            negatives: Number of unchosen elements for each chosen one; None for all.
            start: Probabilities at which the iteration starts.
            generator: Source of randomness; by default torch's global generator.
        """
        check_features("x", x)
        if not isinstance(target, Tensor) or target.dtype != torch.bool or target.shape != x.shape[:1]:
            given = f"{target.dtype} {tuple(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
            raise InputError(f"target must be boolean of shape ({len(x)},), got {given}")
        only = None
        if negatives is not None:
            positive("negatives", negatives)
            only = target | _drawn_negatives(target, layout_of(x, index, ptr, num_sets), negatives, generator)
        found = self(x, index, ptr, num_sets, start=start, only=only, generator=generator)
        terms = nn.functional.binary_cross_entropy_with_logits(
            found.logits, target.to(found.logits.dtype), weight=None if only is None else only, reduction="sum"
        )
        return terms / max(1, len(found.residual))

    def elbo(
        self,
        x: Float[Tensor, "elements *shape"],
        probabilities: Float[Tensor, " elements"],
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_sets: int | None = None,
    ) -> Float[Tensor, " sets"]:
        r"""Return the evidence lower bound, $\mathbb E_\psi[F] + \sum_i H(\psi_i) \le \log Z$, of each set, exactly.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            probabilities: Inclusion probabilities, `(elements,)`.
            index: Index of the set of each element, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`.
            num_sets: Number of sets; by default inferred.
        """
        sets = self.utility.prepare(x, index, ptr, num_sets)
        largest = max(n for _, n in sets.blocks.runs)
        if largest > self.exact_below:
            raise InputError(
                f"the bound is exact for at most exact_below={self.exact_below} elements, got a set of {largest}"
            )
        check_probabilities(probabilities, len(sets.owner))
        psi = sets.sort(probabilities).to(promote_half(sets.features))
        values = [
            contracted(promote_half(table), p[..., 0])[0][:, None]
            for table, p in zip(tables(self.utility, sets), sets.blocks.split(psi[:, None], 1), strict=True)
        ]
        entropy = torch.special.entr(psi) + torch.special.entr(1 - psi)
        return sets.blocks.join(values, 0)[:, 0] + _sum_of_sets(entropy, sets)

    def _update(
        self, sets: GroundSets, uniforms: Tensor | None, generator: torch.Generator | None
    ) -> tuple[bool, Callable[..., Tensor]]:
        """Return whether subsets are sampled, and the map from logits to the mean gains of elements."""
        small = sets.blocks.sizes <= self.exact_below
        if bool(small.all()):
            return False, ExactGains(self.utility, sets, self.mode == "coordinate")
        draw = partial(self._uniforms, sets, generator)
        if uniforms is not None or not (self.training and self.grad == "unroll"):
            # one draw for all iterations makes the map deterministic, so that its fixed points can be certified
            kept = draw() if uniforms is None else sets.sort(uniforms)
            draw = partial(torch.Tensor.detach, kept)
        draws = SampledGains(self.utility, sets, draw, self.grad == "unroll")
        if not bool(small.any()):
            return True, draws
        return True, MixedGains(self.utility, sets, small, draws)

    def _uniforms(self, sets: GroundSets, generator: torch.Generator | None) -> Tensor:
        """Draw uniform numbers, `(samples, elements)`; in evaluation, each set takes the same ones by position."""
        device = sets.owner.device
        source = device if generator is None else generator.device
        if self.training:
            shape = (self.n_samples, len(sets.owner))
            return torch.rand(shape, generator=generator, device=source).to(device)
        if generator is None:
            generator, source = torch.Generator().manual_seed(0), torch.device("cpu")
        largest = int(sets.blocks.sizes.max())
        drawn = torch.rand(largest, self.n_samples, generator=generator, device=source).T.to(device)
        starts = sets.blocks.sizes.cumsum(0) - sets.blocks.sizes
        return drawn[:, torch.arange(len(sets.owner), device=device) - starts[sets.owner]]

    def _iterate(
        self, sets: GroundSets, logits: Tensor, update: Callable[..., Tensor], only: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        count = len(sets.blocks.sizes)
        step = logits.new_full((count,), 0.5 if self.mode == "damped" else 1.0)
        cycles = torch.zeros(count, dtype=torch.bool, device=logits.device)
        residual, earlier = logits.new_full((count,), torch.inf), None
        follow = torch.is_grad_enabled() and self.grad == "unroll"
        for iteration in range(1, self.n_iter + 1):
            done = residual <= self.tolerance
            last = iteration == self.n_iter or bool(done.all())
            with torch.set_grad_enabled(torch.is_grad_enabled() and (last or follow)):
                if last and self.grad == "implicit":
                    gains = at_fixed_point(update, logits, sets)
                else:
                    gains = update(logits, only if last else None)
                if last and only is not None:
                    gains = torch.where(_members(only, sets), gains, logits)
                damped = bool((step < 1).any()) and not (last and self.grad == "implicit")
                new = logits + step[sets.owner] * (gains - logits) if damped else gains
                if not last:  # a set that has arrived waits, so that it does not depend on slower ones
                    new = torch.where(done[sets.owner], logits, new)
            residual, moved = _largest_change(gains, logits, sets), _largest_change(new, logits, sets)
            if earlier is not None:
                back = _largest_change(new, earlier, sets)
                alternating = (back <= 0.1 * moved) & (moved > self.tolerance) & (self.mode != "coordinate")
                cycles, step = cycles | alternating, torch.where(alternating, step / 2, step)
            earlier, logits = logits.detach(), new
            if last:
                break
        if self.grad == "implicit" and logits.requires_grad and bool((residual > _FIXED).any()):
            raise InputError(
                f"grad='implicit' needs a fixed point, and the residual is {float(residual.max()):.2g} after "
                f"{iteration} iterations; raise n_iter, or use grad='unroll'"
            )
        if only is not None:
            wanted = torch.zeros(count, dtype=torch.bool, device=logits.device)
            wanted[sets.owner[only]] = True
            residual = torch.where(wanted, residual, torch.nan)
        return logits, residual, cycles, iteration


def _drawn_negatives(target: Tensor, plan: ReductionPlan, ratio: float, generator: torch.Generator | None) -> Tensor:
    """Return some unchosen elements of each set, in the order of the input."""
    chosen = target if plan.order is None else target[plan.order]
    owner = torch.repeat_interleave(plan.sizes)
    count = torch.zeros_like(plan.sizes).index_add(0, owner, chosen.to(plan.sizes.dtype))
    source = target.device if generator is None else generator.device
    scores = torch.rand(len(target), generator=generator, device=source).to(target.device)
    wanted = (count * ratio).round().clamp(min=1).minimum(plan.sizes - count).long()
    drawn = largest_of_each_set(torch.where(chosen, -1.0, scores), plan.sizes, wanted)
    return drawn if plan.order is None else torch.empty_like(drawn).index_copy(0, plan.order, drawn)


def _start_logits(start: float | Tensor, sets: GroundSets) -> Tensor:
    """Return the logits of the start, in float32 for half precision, which would round small probabilities up."""
    like = promote_half(sets.features)
    if isinstance(start, Tensor):
        check_probabilities(start, len(sets.owner), "start")
        psi = start.detach().to(like)
    elif is_real(start) and 0 <= start <= 1:
        psi = torch.full((len(sets.owner),), float(start), dtype=like.dtype, device=like.device)
    else:
        raise InputError(
            f"start must be a probability in 0..1 or a tensor with one for each element, got {start!r:.60}"
        )
    tiny = torch.finfo(psi.dtype).eps
    return psi.clamp(tiny, 1 - tiny).logit()


def _check_uniforms(uniforms: Tensor, shape: tuple[int, int]) -> None:
    if not isinstance(uniforms, Tensor) or uniforms.shape != shape or not uniforms.is_floating_point():
        given = tuple(uniforms.shape) if isinstance(uniforms, Tensor) else type(uniforms).__name__
        raise InputError(f"uniforms must have shape {shape}, got {given}")
    if not bool(((uniforms >= 0) & (uniforms <= 1)).all()):
        raise InputError("uniforms must lie in 0..1")


def _read_only(only: Tensor, sets: GroundSets) -> Tensor:
    if not isinstance(only, Tensor) or only.dtype != torch.bool or only.shape != (len(sets.owner),):
        given = f"{only.dtype} {tuple(only.shape)}" if isinstance(only, Tensor) else type(only).__name__
        raise InputError(f"only must be boolean of shape ({len(sets.owner)},), got {given}")
    return sets.sort(only).nonzero()[:, 0]


def _members(rows: Tensor, sets: GroundSets) -> Tensor:
    return torch.zeros_like(sets.owner, dtype=torch.bool).index_fill(0, rows, True)


def _largest_change(a: Tensor, b: Tensor, sets: GroundSets) -> Tensor:
    change = (a.detach().sigmoid() - b.detach().sigmoid()).abs()
    found = change.new_zeros(len(sets.blocks.sizes))
    return found.scatter_reduce(0, sets.owner, change, "amax")


def _sum_of_sets(values: Tensor, sets: GroundSets) -> Tensor:
    return values.new_zeros(len(sets.blocks.sizes)).index_add(0, sets.owner, values)
