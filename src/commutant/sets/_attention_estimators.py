"""Ridge regression and classification of sets on random attention features, as estimators of scikit-learn."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from .._estimators import Estimator, accuracy, differ, labels, not_fitted, numbers, r_squared
from ..algebra import NormalEquations, RidgeFit, ridge
from ._attention_features import RandomAttentionFeatures, features_of_sets
from ._ragged import as_sets, means_of_sets, names_of_features
from ._tokens import Bias


class _RandomAttention(Estimator):
    """Base of the regressor and the classifier: features of standardized sets, and a ridge on them."""

    def __init__(
        self,
        num_heads: int = 256,
        *,
        bias: Bias = None,
        orthogonal: bool = True,
        penalties: Sequence[float] | float | None = None,
        standardize: bool = True,
        random_state: int = 0,
    ) -> None:
        self.num_heads, self.bias, self.orthogonal = num_heads, bias, orthogonal
        self.penalties, self.standardize, self.random_state = penalties, standardize, random_state

    def _started(self, x: Tensor, queries: Tensor, means: bool, names: np.ndarray | None) -> dict[str, Any]:
        """Return the scale of the features, the heads, and what later calls are compared with."""
        whole("num_heads", self.num_heads)
        whole("random_state", self.random_state, 0)
        features = RandomAttentionFeatures(
            queries.shape[1],
            x.shape[1],
            self.num_heads,
            bias=self.bias,
            orthogonal=self.orthogonal,
            generator=torch.Generator().manual_seed(int(self.random_state)),
        ).double()
        return {
            "n_features_in_": x.shape[1],
            "feature_names_in_": names,
            "key_scale_": _scale(x, x, self.standardize),
            "query_scale_": _scale(queries, x if means else queries, self.standardize),
            "features_": features,
            "means_are_queries_": means,
        }

    def _read(self, X: Any, queries: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return elements, sizes and queries; by default the query of a set is the mean of its elements."""
        name = type(self).__name__
        x, sizes = as_sets(X, name)
        if queries is None:
            return x, sizes, means_of_sets(x, sizes)
        try:
            found, counts = as_sets(queries, name)
        except InputError as error:
            raise InputError(f"queries: {error}") from None
        if len(counts) != len(sizes) or bool((counts != 1).any()):
            raise InputError(f"queries must have one row for each of {len(sizes)} sets, got {len(counts)}")
        return x, sizes, found

    def _fit(self, X: Any, targets: Tensor, queries: Any) -> None:
        x, sizes, asked = self._read(X, queries)
        _same_length(sizes, targets)
        state = self._started(x, asked, queries is None, names_of_features(X))
        rows = _features(state, x, sizes, asked), targets
        if len(rows[0]) > rows[0].shape[1]:
            sums = NormalEquations().add(*rows)
            self._keep(state, sums.solve(**self._path()), sums)
        else:
            self._keep(state, ridge(*rows, **self._path()), rows)

    def _partial_fit(self, X: Any, targets: Tensor, queries: Any) -> None:
        x, sizes, asked = self._read(X, queries)
        _same_length(sizes, targets)
        if not hasattr(self, "coef_"):
            state, sums = self._started(x, asked, queries is None, names_of_features(X)), NormalEquations()
        else:
            if any(differ(value, self._arguments[name]) for name, value in self.get_params().items()):
                raise InputError("arguments were changed since the last fit or partial_fit; create a new estimator")
            state, known = self._fitted(), self._seen
            sums = copy.copy(known) if isinstance(known, NormalEquations) else NormalEquations().add(*known)
        self._check_features(state, X, x, asked, queries is None)
        sums.add(_features(state, x, sizes, asked), targets)
        self._keep(state, sums.solve(**self._path()), sums)

    def _path(self) -> dict[str, Any]:
        return {} if self.penalties is None else {"penalties": self.penalties}

    def _keep(self, state: dict[str, Any], fit: RidgeFit, seen: NormalEquations | tuple[Tensor, Tensor]) -> None:
        """Take over the results, once all of them are known.

        Args:
            state: What `_started` returned.
            fit: Solution.
            seen: Sums that a later `partial_fit` continues; or the rows, if they are fewer than the features.
        """
        self.__dict__.pop("feature_names_in_", None)
        self.__dict__.update({name: value for name, value in state.items() if value is not None})
        self._state, self._seen, self._arguments = tuple(state), seen, self.get_params()
        self.coef_, self.intercept_, self.penalty_ = fit.coefficients, fit.intercept, fit.penalty

    def _fitted(self) -> dict[str, Any]:
        return {name: getattr(self, name, None) for name in self._state}

    def _check_features(self, state: dict[str, Any], X: Any, x: Tensor, queries: Tensor, means: bool) -> None:
        name, names, fitted = type(self).__name__, names_of_features(X), state.get("feature_names_in_")
        if names is not None and fitted is not None and not np.array_equal(names, fitted):
            raise InputError(
                "The feature names should match those that were passed during fit, in the same order, got "
                f"{', '.join(names[:5])} for {', '.join(fitted[:5])}"
            )
        if x.shape[1] != state["n_features_in_"]:
            raise InputError(
                f"X has {x.shape[1]} features, but {name} is expecting {state['n_features_in_']} features as input"
            )
        if means != state["means_are_queries_"]:
            said = ("with", "without") if means else ("without", "with")
            raise InputError(f"{name} was fitted {said[0]} queries and is called {said[1]}; do the same in both")
        if queries.shape[1] != len(state["query_scale_"][0]):
            expected = len(state["query_scale_"][0])
            raise InputError(f"queries have {queries.shape[1]} features, but {name} is expecting {expected}")

    def _scores(self, X: Any, queries: Any) -> Tensor:
        if not hasattr(self, "coef_"):
            raise not_fitted(type(self).__name__)
        x, sizes, asked = self._read(X, queries)
        state = self._fitted()
        self._check_features(state, X, x, asked, queries is None)
        return _features(state, x, sizes, asked) @ self.coef_ + self.intercept_


class RandomAttentionRegressor(_RandomAttention):
    """Regressor of sets: a ridge in float64 on random attention features, fitted in closed form.

    A strong convex baseline for sets that needs no training loop. It expresses averages over elements of functions of
    the query and one element. A trained DeepSets network wins where the target is a smooth average of single elements;
    see the claims.

    Args:
        num_heads: Number of heads. The number of coefficients is `num_heads * (features + 1)`.
        bias: Mean of the query-key matrices, as for `RandomAttentionFeatures`; `"identity"` for targets that depend on
            the inner product of query and element.
        orthogonal: Whether heads are drawn orthogonal, which lowers their variance.
        penalties: Ridge penalties relative to the largest eigenvalue, of which generalized cross-validation picks one;
            None for 1e-12 to 10.
        standardize: Whether to standardize features over all elements, and scale tokens to norms of about one.
        random_state: Seed of the heads.

    Example:
        >>> sets = [torch.randn(n, 3) for n in (4, 7, 5, 6) * 10]
        >>> y = torch.stack([s.square().sum(1).mean() for s in sets])
        >>> RandomAttentionRegressor(64).fit(sets, y).score(sets, y) > 0.9
        True
    """

    _kind = "regressor"

    def fit(self, X: Any, y: Any, queries: Any = None) -> RandomAttentionRegressor:
        """Fit the regressor.

        Args:
            X: List of sets, each `(size, features)`; array `(sets, size, features)`; or array `(rows, features)`, whose
                rows are sets of one element.
            y: Targets `(sets,)` or `(sets, outputs)`.
            queries: Query of each set, `(sets, query_features)`; by default the mean of its elements.

        Raises:
            InputError: For shapes that don't match, empty sets, or values that are not finite.
        """
        targets, flat = self._targets(y)
        self._fit(X, targets, queries)
        self._flat = flat
        return self

    def partial_fit(self, X: Any, y: Any, queries: Any = None) -> RandomAttentionRegressor:
        """Add sets to those of `fit` and of earlier calls, and solve for all of them.

        The first call fixes the scale of the features, so it should hold more than a few sets.

        Args:
            X: Sets, as for `fit`.
            y: Targets.
            queries: Query of each set.
        """
        targets, flat = self._targets(y)
        self._partial_fit(X, targets, queries)
        self._flat = flat
        return self

    def _targets(self, y: Any) -> tuple[Tensor, bool]:
        targets = numbers(y, type(self).__name__)
        return (targets[:, None], True) if targets.ndim == 1 else (targets, False)

    def predict(self, X: Any, queries: Any = None) -> np.ndarray:
        """Return predictions in the shape of the targets.

        Args:
            X: Sets, as for `fit`.
            queries: Query of each set.
        """
        found = self._scores(X, queries).numpy()
        return found[:, 0] if self._flat else found

    def score(self, X: Any, y: Any, queries: Any = None) -> float:
        """Return the coefficient of determination $R^2$.

        Args:
            X: Sets, as for `fit`.
            y: Targets in the shape of those of `fit`.
            queries: Query of each set.
        """
        return r_squared(self.predict(X, queries), y)


class RandomAttentionClassifier(_RandomAttention):
    """Classifier of sets: one-vs-rest ridge in float64 on random attention features, fitted in closed form.

    Args:
        num_heads: Number of heads.
        bias: Mean of the query-key matrices, as for `RandomAttentionFeatures`.
        orthogonal: Whether heads are drawn orthogonal.
        penalties: Ridge penalties relative to the largest eigenvalue, of which generalized cross-validation picks one.
        standardize: Whether to standardize features over all elements, and scale tokens to norms of about one.
        random_state: Seed of the heads.

    Example:
        >>> sets = [torch.randn(5, 2) + label for label in (0, 2) * 20]
        >>> RandomAttentionClassifier(32).fit(sets, ["near", "far"] * 20).score(sets, ["near", "far"] * 20)
        1.0
    """

    _kind = "classifier"

    def fit(self, X: Any, y: Any, queries: Any = None) -> RandomAttentionClassifier:
        """Fit the classifier.

        Args:
            X: Sets, as for `RandomAttentionRegressor.fit`.
            y: Labels `(sets,)`.
            queries: Query of each set; by default the mean of its elements.

        Raises:
            InputError: For shapes that don't match, empty sets, values that are not finite, or a single class.
        """
        classes, codes = labels(y, type(self).__name__)
        self._fit(X, torch.nn.functional.one_hot(torch.from_numpy(codes).long(), len(classes)).double(), queries)
        self.classes_ = classes
        return self

    def decision_function(self, X: Any, queries: Any = None) -> np.ndarray:
        """Return scores `(sets, classes)`; for two classes the second minus the first, `(sets,)`.

        Args:
            X: Sets, as for `fit`.
            queries: Query of each set.
        """
        scores = self._scores(X, queries).numpy()
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any, queries: Any = None) -> np.ndarray:
        """Return predicted labels `(sets,)`.

        Args:
            X: Sets, as for `fit`.
            queries: Query of each set.
        """
        best = self._scores(X, queries).argmax(1).numpy()
        return self.classes_[best]

    def score(self, X: Any, y: Any, queries: Any = None) -> float:
        """Return the accuracy.

        Args:
            X: Sets, as for `fit`.
            y: Labels `(sets,)`.
            queries: Query of each set.
        """
        return accuracy(self.predict(X, queries), y)


def _scale(x: Tensor, reference: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """Return the mean and the scale of each feature, with which tokens have a mean squared norm of one.

    Args:
        x: Tokens.
        reference: Tokens whose size tells what is rounding: features that vary less than that are constant.
        standardize: Whether to standardize at all.
    """
    if not standardize:
        return torch.zeros(x.shape[1], dtype=torch.float64), torch.ones(x.shape[1], dtype=torch.float64)
    spread = x.std(0, correction=0)
    rounding = 64 * torch.finfo(torch.float64).eps * len(reference) ** 0.5 * reference.abs().amax(0)
    return x.mean(0), torch.where(spread > rounding, spread, 1.0) * x.shape[1] ** 0.5


def _features(state: dict[str, Any], x: Tensor, sizes: Tensor, queries: Tensor) -> Tensor:
    """Return the features of each set."""
    keys, asked = (
        (t - mean) / scale for t, (mean, scale) in ((x, state["key_scale_"]), (queries, state["query_scale_"]))
    )
    return features_of_sets(state["features_"], asked, keys, sizes)


def _same_length(sizes: Tensor, targets: Tensor) -> None:
    if len(sizes) != len(targets):
        raise InputError(f"X and y must have equal lengths, got {len(sizes)} sets and {len(targets)} targets")
