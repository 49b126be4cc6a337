"""Ridge regression and classification of sets on random attention features, as estimators of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from .._estimators import Estimator, accuracy, column_names, labels, not_fitted, numbers, r_squared
from ..algebra import NormalEquations, RidgeFit, ridge
from ._attention_features import RandomAttentionFeatures, features_of_sets
from ._ragged import as_sets, means_of_sets
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

    def _start(self, x: Tensor, queries: Tensor, names: np.ndarray | None) -> None:
        """Fix the scale of the features, and draw the heads."""
        whole("num_heads", self.num_heads)
        whole("random_state", self.random_state, 0)
        self.n_features_in_ = x.shape[1]
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.key_scale_, self.query_scale_ = (_scale(t, self.standardize) for t in (x, queries))
        generator = torch.Generator().manual_seed(int(self.random_state))
        self.features_ = RandomAttentionFeatures(
            queries.shape[1],
            x.shape[1],
            self.num_heads,
            bias=self.bias,
            orthogonal=self.orthogonal,
            generator=generator,
        ).double()

    def _read(self, X: Any, queries: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return elements, sizes and queries; by default the query of a set is the mean of its elements."""
        name = type(self).__name__
        x, sizes = as_sets(X, name)
        if queries is None:
            return x, sizes, means_of_sets(x, sizes)
        found, counts = as_sets(queries, name)
        if len(found) != len(sizes) or bool((counts != 1).any()):
            raise InputError(f"queries must have a row for each of {len(sizes)} sets, got {len(found)} rows")
        return x, sizes, found

    def _features(self, x: Tensor, sizes: Tensor, queries: Tensor) -> Tensor:
        """Return the features of each set."""
        keys, asked = ((t - mean) / scale for t, (mean, scale) in ((x, self.key_scale_), (queries, self.query_scale_)))
        return features_of_sets(self.features_, asked, keys, sizes)

    def _fit(self, X: Any, targets: Tensor, queries: Any) -> None:
        x, sizes, asked = self._read(X, queries)
        _same_length(sizes, targets)
        self._start(x, asked, column_names(X))
        self._sums: NormalEquations | None = None
        self._keep(ridge(self._features(x, sizes, asked), targets, **self._path()))

    def _partial_fit(self, X: Any, targets: Tensor, queries: Any) -> None:
        x, sizes, asked = self._read(X, queries)
        _same_length(sizes, targets)
        sums = getattr(self, "_sums", None)
        if sums is None:
            self._start(x, asked, column_names(X))
            self._sums = sums = NormalEquations()
        self._check_features(X, x, asked)
        self._keep(sums.add(self._features(x, sizes, asked), targets).solve(**self._path()))

    def _path(self) -> dict[str, Sequence[float]]:
        if self.penalties is None:
            return {}
        return {"penalties": [self.penalties] if isinstance(self.penalties, float | int) else list(self.penalties)}

    def _keep(self, fit: RidgeFit) -> None:
        self.coef_, self.intercept_, self.penalty_ = fit.coefficients, fit.intercept, fit.penalty

    def _check_features(self, X: Any, x: Tensor, queries: Tensor) -> None:
        name, names = type(self).__name__, column_names(X)
        fitted = getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and not np.array_equal(names, fitted):
            raise InputError(
                "The feature names should match those that were passed during fit, in the same order, got "
                f"{', '.join(names[:5])} for {', '.join(fitted[:5])}"
            )
        expected = (self.n_features_in_, self.query_scale_[0].shape[0])
        if x.shape[1] != expected[0]:
            raise InputError(f"X has {x.shape[1]} features, but {name} is expecting {expected[0]} features as input")
        if queries.shape[1] != expected[1]:
            raise InputError(f"queries have {queries.shape[1]} features, but {name} is expecting {expected[1]}")

    def _scores(self, X: Any, queries: Any) -> Tensor:
        if not hasattr(self, "coef_"):
            raise not_fitted(type(self).__name__)
        x, sizes, asked = self._read(X, queries)
        self._check_features(X, x, asked)
        return self._features(x, sizes, asked) @ self.coef_ + self.intercept_


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
        self._fit(X, self._targets(y), queries)
        return self

    def partial_fit(self, X: Any, y: Any, queries: Any = None) -> RandomAttentionRegressor:
        """Add sets to those of earlier calls, and solve for all of them; the first call fixes the scale of features.

        Args:
            X: Sets, as for `fit`.
            y: Targets.
            queries: Query of each set.
        """
        self._partial_fit(X, self._targets(y), queries)
        return self

    def _targets(self, y: Any) -> Tensor:
        targets = numbers(y, type(self).__name__)
        self._flat = targets.ndim == 1
        return targets[:, None] if self._flat else targets

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
        self.classes_, codes = labels(y, type(self).__name__)
        hot = torch.nn.functional.one_hot(torch.from_numpy(codes).long(), len(self.classes_)).double()
        self._fit(X, hot, queries)
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


def _scale(x: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """Return the mean and the scale of each feature, with which tokens have a mean squared norm of one."""
    if not standardize:
        return torch.zeros(x.shape[1], dtype=torch.float64), torch.ones(x.shape[1], dtype=torch.float64)
    spread = x.std(0, correction=0)
    return x.mean(0), torch.where(spread > 0, spread, 1.0) * x.shape[1] ** 0.5


def _same_length(sizes: Tensor, targets: Tensor) -> None:
    if len(sizes) != len(targets):
        raise InputError(f"X and y must have equal lengths, got {len(sizes)} sets and {len(targets)} targets")
