"""Learner of permutations and selection maps that is exact on every binary input after training on basis vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError
from ._ensemble import ReLUEnsemble
from ._tangent_kernel import RULES, PermutationNTK, Rule, binary_inputs, check_delta, round_outputs


@dataclass(frozen=True)
class FailureBound:
    """Proven bound on the probability of a wrong answer.

    Attributes:
        probability: Bound on the probability that any input is answered wrongly, over initializations.
    """

    probability: float


@dataclass(frozen=True)
class FailureEstimate:
    """Estimate of the probability of a wrong answer from the infinite-width limit; not a bound at finite width.

    Networks of finite width fail more often. This includes antithetic networks, whose estimate is zero.

    Attributes:
        probability: Bound on the probability of a wrong answer if the networks were infinitely wide.
        width: Number of hidden units of the networks.
    """

    probability: float
    width: int


class ExactPermutationLearner:
    """Two-layer ReLU networks that learn $x \\mapsto P x$ from $e_1 ... e_k$, for all $2^k - 1$ nonzero binary inputs.

    The interface is that of a scikit-learn estimator. With `width=None` the learner computes the mean of infinitely
    many infinitely wide networks, which is exact. With a width it trains real networks, as many as `delta` requires.
    Targets may be any selection map: each output copies one input, and outputs may repeat or drop inputs. An output fed
    by several inputs (OR) is correct only on sparse inputs. After `fit`, `dense_from_` is the smallest number of ones
    at which it is wrong.

    A *linear* network also learns the same map exactly from the same data; the point is that ReLU networks do so too.

    Args:
        delta: Allowed probability that any input is answered wrongly, over initializations, at infinite width.
            Networks of finite width exceed it.
        rule: Rule that rounds averaged outputs to bits: `"topn"` (keeps the number of ones, for permutations),
            `"midpoint"`, or the paper's `"sign"`, which needs many more networks.
        width: Number of hidden units of real networks, or None for the infinite-width limit.
        models: Number of real networks, or None for as many as `delta` requires.
        antithetic: Whether every network is zero at initialization; a few wide networks then suffice.
        seed: Seed of the weights.

    Example:
        >>> learner = ExactPermutationLearner().fit(torch.eye(5), torch.eye(5)[[3, 0, 4, 1, 2]])
        >>> learner.predict(torch.tensor([[1, 0, 0, 1, 1]])).tolist()
        [[0, 1, 1, 1, 0]]
    """

    def __init__(
        self,
        *,
        delta: float = 0.01,
        rule: Rule = "midpoint",
        width: int | None = None,
        models: int | None = None,
        antithetic: bool = False,
        seed: int = 0,
    ) -> None:
        self.delta, self.rule, self.width, self.models = delta, rule, width, models
        self.antithetic, self.seed = antithetic, seed

    def fit(self, x: Num[Tensor, "rows k"], y: Num[Tensor, "images outputs"]) -> ExactPermutationLearner:
        """Learn from the basis vectors, in any order, and their images.

        Args:
            x: Basis vectors, `(k, k)`.
            y: Binary image of each row of x, `(k, outputs)`.

        Returns:
            The fitted learner.

        Raises:
            InputError: For inputs that are not the k basis vectors, images that are not binary, or options that do not
                fit. The topn rule needs images that keep the number of ones.
        """
        one_of("rule", self.rule, RULES)
        check_delta(self.delta)
        for name, value in (("x", x), ("y", y)):
            if not isinstance(value, Tensor):
                raise InputError(f"{name} must be a tensor, got {type(value).__name__}")
            if value.is_complex():
                raise InputError(f"{name} must be a tensor of real numbers, got {value.dtype}")
        one_of("antithetic", self.antithetic, (True, False))
        whole("seed", self.seed, 0)
        for name, size in (("width", self.width), ("models", self.models)):
            if size is not None:
                whole(name, size)
        k = x.shape[1] if x.ndim == 2 else 0
        rows, weights = binary_inputs(x, max(k, 1))
        if len(rows) != k or bool((weights != 1).any()) or bool((rows.sum(0) != 1).any()):
            raise InputError(f"x must hold the {k} basis vectors, each once, got {len(rows)} rows")
        if y.ndim != 2 or len(y) != k or not y.shape[1] or bool(((y != 0) & (y != 1)).any()):
            raise InputError(f"y must hold binary rows, one for each of {k} inputs, got shape {tuple(y.shape)}")
        self.law_ = PermutationNTK(k)
        targets = torch.empty(k, y.shape[1], dtype=torch.float64)
        targets[rows.argmax(1)] = y.to(torch.float64)
        self.targets_ = targets
        fed = targets.sum(0)
        self.dense_from_ = self._first_wrong_weight(int(fed.max()))
        self._fed, self._copies = fed > 0, max(1, int(targets.sum(1).max()))
        self.rule_: Rule = "sign" if float(fed.max()) > 1 else self.rule
        if self.rule == "topn" and not (bool((fed == 1).all()) and targets.shape[1] == k):
            raise InputError(
                "rule='topn' keeps the number of ones of the input, but the images in y do not; use 'midpoint'"
            )
        self.ensemble_: ReLUEnsemble | None = None
        if self.width is not None:
            if float(fed.max()) > 1:
                raise InputError(
                    f"width must be None where outputs are fed by several inputs, got {self.width}; leave it out"
                )
            self.models_ = (
                self.models
                if self.models is not None
                else self.law_.ensemble_size(self.delta / self._copies, self.rule_)
            )
            generator = torch.Generator().manual_seed(self.seed)
            self.ensemble_ = ReLUEnsemble(
                k, targets.shape[1], width=self.width, models=self.models_, antithetic=self.antithetic,
                generator=generator,
            )  # fmt: skip
            top = (2 * math.pi + k - 1) / (2 * math.pi * k)
            self.steps_ = self.ensemble_.fit(torch.eye(k), targets.float(), rate=1 / top, tolerance=1e-5)
        return self

    def decision_function(self, x: Tensor) -> Float[Tensor, "rows outputs"]:
        """Return the averaged outputs at binary inputs `(rows, k)`, after normalization.

        Args:
            x: Binary inputs `(rows, k)`.
        """
        self._fitted()
        rows, _ = binary_inputs(x, self.law_.k)
        if self.ensemble_ is None:
            return self.law_.weights(x) @ self.targets_
        with torch.no_grad():
            return self.ensemble_((rows / rows.norm(dim=1, keepdim=True)).float()).double().mean(0)

    def predict(self, x: Tensor) -> Tensor:
        """Return predicted bits `(rows, outputs)`, uint8.

        Args:
            x: Binary inputs `(rows, k)`.

        Raises:
            InputError: Before `fit`, for rows that are zero or not binary, or for rows so dense that an OR would be
                wrong.
        """
        average = self.decision_function(x)
        _, weights = binary_inputs(x, self.law_.k)
        if self.dense_from_ is not None and bool((weights >= self.dense_from_).any()):
            row = int((weights >= self.dense_from_).nonzero()[0])
            raise InputError(
                f"x must have fewer than {self.dense_from_} ones per row where outputs are fed by several inputs, but "
                f"row {row} has {int(weights[row])}"
            )
        return round_outputs(average, weights, self.law_, self.rule_) * self._fed.to(torch.uint8)

    def certificate(self) -> FailureBound | FailureEstimate:
        """Return the probability that any of the $2^k - 1$ inputs is answered wrongly, over initializations.

        Returns:
            A `FailureBound` of zero for the infinite ensemble of `width=None`, or a `FailureEstimate` for real
            networks, for which nothing is proven at finite width.

        Raises:
            InputError: Before `fit`.

        Example:
            >>> eye = torch.eye(4)
            >>> ExactPermutationLearner().fit(eye, eye).certificate()
            FailureBound(probability=0.0)
            >>> ExactPermutationLearner(width=64, models=1, antithetic=True).fit(eye, eye).certificate()
            FailureEstimate(probability=0.0, width=64)
        """
        self._fitted()
        if self.ensemble_ is None:
            return FailureBound(0.0)
        assert self.width is not None
        spread = 0.0 if self.antithetic else self._copies * self.law_.failure(self.models_, self.rule_)
        return FailureEstimate(min(1.0, spread), self.width)

    def _first_wrong_weight(self, fed: int) -> int | None:
        """Return the smallest weight at which one hit among `fed` inputs of an output is outweighed by the misses."""
        if fed <= 1:
            return None
        for n in range(2, self.law_.k):
            one, zero = self.law_.mean(n)
            if one + (fed - 1) * zero <= 0 and n + fed - 1 <= self.law_.k:
                return n
        return None

    def _fitted(self) -> None:
        if not hasattr(self, "law_"):
            raise InputError("the learner is not fitted; call fit with the basis vectors and their images first")
