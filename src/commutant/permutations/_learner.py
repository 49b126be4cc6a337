"""Learn a permutation, or any selection map, exactly on every binary input from the k basis vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .._errors import InputError
from ._ensemble import ReLUEnsemble
from ._tangent_kernel import RULES, PermutationNTK, Rule, binary_inputs, need_whole, round_outputs


@dataclass(frozen=True)
class FailureBound:
    """Proven bound on the probability of a wrong answer.

    Attributes:
        probability: Bound on the probability that any input is answered wrongly, over initializations.
    """

    probability: float


@dataclass(frozen=True)
class FailureEstimate:
    """Estimate of the probability of a wrong answer, by the law of infinite width. It is no bound at a finite width.

    Networks of finite width answer wrongly more often, and antithetic ones too, whose estimate is zero.

    Attributes:
        probability: What a bound would be if the networks were infinitely wide.
        width: Width that the networks have.
    """

    probability: float
    width: int


class ExactPermutationLearner:
    """Two-layer networks that learn $x \\mapsto P x$ from $e_1 ... e_k$, right on all $2^k - 1$ nonzero binary inputs.

    In the manner of scikit-learn. With `width=None` the networks are infinitely wide and the ensemble infinitely large:
    the mean predictor, exact. With a width, real networks are trained together, as many as `delta` asks for. Targets
    are any selection map (each output copies one input; outputs may repeat or drop inputs). Outputs fed by several
    inputs (OR) are right only on inputs that are not too dense; where they are not, `fit` says from which weight on.

    A *linear* network learns the same map from the same data, exactly: what is special here is that ReLU networks do.

    Args:
        delta: Probability that any input is answered wrongly, over initializations, that is allowed by the law of
            infinite width. Networks of finite width exceed it.
        rule: how averaged outputs become bits: `"topn"` (keeps the weight: permutations), `"midpoint"`, or the
            paper's `"sign"`, which needs many more networks.
        width: hidden units of real networks, or None for the limit.
        models: how many of them; None for what `delta` asks for.
        antithetic: start every network at zero; a handful of wide ones is enough then.
        seed: of the weights.

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

        Raises:
            InputError: for inputs that are not the k basis vectors, images that are not binary, or the topn rule where
                images do not keep the weight.
        """
        number = isinstance(self.delta, int | float)
        if self.rule not in RULES or not number or not 0 < self.delta < 1:
            raise InputError(f"rule is one of {', '.join(RULES)} and delta in (0, 1), got {self.rule!r}, {self.delta}")
        for value, name in ((x, "training inputs"), (y, "images")):
            if not isinstance(value, Tensor):
                raise InputError(f"{name} are a tensor, got {type(value).__name__}")
            if value.is_complex():
                raise InputError(f"{name} are a tensor of real numbers, got {value.dtype}")
        if not isinstance(self.antithetic, bool):
            raise InputError(f"antithetic is True or False, got {self.antithetic!r}")
        need_whole("seed", self.seed, 0)
        for size in ("width", "models"):
            if getattr(self, size) is not None:
                need_whole(size, getattr(self, size))
        k = x.shape[1] if x.ndim == 2 else 0
        rows, weights = binary_inputs(x, max(k, 1))
        if len(rows) != k or bool((weights != 1).any()) or bool((rows.sum(0) != 1).any()):
            raise InputError(f"training inputs are the {k} basis vectors, each once, got {len(rows)} rows")
        if y.ndim != 2 or len(y) != k or not y.shape[1] or bool(((y != 0) & (y != 1)).any()):
            raise InputError(f"images are binary rows, one for each of {k} inputs, got shape {tuple(y.shape)}")
        self.law_ = PermutationNTK(k)
        targets = torch.empty(k, y.shape[1], dtype=torch.float64)
        targets[rows.argmax(1)] = y.to(torch.float64)
        self.targets_ = targets
        fed = targets.sum(0)
        self.dense_from_ = self._first_wrong_weight(int(fed.max()))
        self._fed, self._copies = fed > 0, max(1, int(targets.sum(1).max()))
        self.rule_: Rule = "sign" if float(fed.max()) > 1 else self.rule
        if self.rule == "topn" and not (bool((fed == 1).all()) and targets.shape[1] == k):
            raise InputError("the topn rule keeps the weight of the input, which these images do not; use 'midpoint'")
        self.ensemble_: ReLUEnsemble | None = None
        if self.width is not None:
            if float(fed.max()) > 1:
                raise InputError("outputs fed by several inputs are offered in the limit alone: leave width out")
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
        """Averaged outputs at the normalised inputs."""
        self._fitted()
        rows, _ = binary_inputs(x, self.law_.k)
        if self.ensemble_ is None:
            return self.law_.weights(x) @ self.targets_
        with torch.no_grad():
            return self.ensemble_((rows / rows.norm(dim=1, keepdim=True)).float()).double().mean(0)

    def predict(self, x: Tensor) -> Tensor:
        """Bits `(rows, outputs)`, uint8.

        Raises:
            InputError: before `fit`, for rows that are zero or not binary, or so dense that an OR would be wrong.
        """
        average = self.decision_function(x)
        _, weights = binary_inputs(x, self.law_.k)
        if self.dense_from_ is not None and bool((weights >= self.dense_from_).any()):
            raise InputError(
                f"some outputs are fed by several inputs, and from {self.dense_from_} ones on their sign is wrong, as "
                f"in row {int((weights >= self.dense_from_).nonzero()[0])}"
            )
        return round_outputs(average, weights, self.law_, self.rule_) * self._fed.to(torch.uint8)

    def certificate(self) -> FailureBound | FailureEstimate:
        """Return how likely any of the $2^k - 1$ inputs is answered wrongly, over initializations.

        Returns:
            A `FailureBound` of zero for the infinite ensemble, which `width=None` computes. A `FailureEstimate` for
            real networks: nothing is proven at their width.

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
        """The least weight at which one hit among so many inputs of an output is outweighed by the misses."""
        if fed <= 1:
            return None
        for n in range(2, self.law_.k):
            one, zero = self.law_.mean(n)
            if one + (fed - 1) * zero <= 0 and n + fed - 1 <= self.law_.k:
                return n
        return None

    def _fitted(self) -> None:
        if not hasattr(self, "law_"):
            raise InputError("the learner is not fitted: call fit with the basis vectors and their images first")
