"""Kernel regression with the kernel of a wide network, as estimators of scikit-learn."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..._checks import is_real, one_of, whole
from ..._errors import InputError
from ..._estimators import Estimator, accuracy, column_names, labels, matrix, not_fitted, numbers, r_squared
from ...algebra import Activation
from ..criticality._criticality import critical_point
from ._kernel_maps import Dense, KernelMap, need_map, plain_network
from ._predict import ntk_predict
from ._wide_kernel import wide_kernel


class _KernelEstimator(Estimator):
    """Base of the classifier and the regressor: kernel and standardized inputs."""

    def __init__(
        self,
        network: str | KernelMap = "relu",
        *,
        depth: int = 3,
        ridge: float = 1e-4,
        get: Literal["tangent", "kernel"] = "tangent",
        standardize: bool = True,
    ) -> None:
        self.network, self.depth, self.ridge = network, depth, ridge
        self.get: Literal["tangent", "kernel"] = get
        self.standardize = standardize

    def _fit(self, x: Any, targets: Tensor) -> None:
        inputs = matrix(x, type(self).__name__)
        if len(inputs) != len(targets):
            raise InputError(f"X and y must have equal lengths, got {len(inputs)} inputs and {len(targets)} targets")
        whole("depth", self.depth)
        if not is_real(self.ridge) or not 0 <= self.ridge < math.inf:
            raise InputError(f"ridge must be a finite number that is not negative, got {self.ridge!r}")
        one_of("get", self.get, ("tangent", "kernel"))
        if not isinstance(self.network, str):
            need_map(self.network)
        self.mean_ = inputs.mean(0) if self.standardize else torch.zeros(inputs.shape[1], dtype=torch.float64)
        spread = inputs.std(0, correction=0) if self.standardize else torch.ones_like(self.mean_)
        self.scale_ = torch.where(spread > 0, spread, 1.0)
        self.n_features_in_ = inputs.shape[1]
        names = column_names(x)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.map_: KernelMap = (
            self.network if not isinstance(self.network, str) else _critical(self.network, self.depth)
        )
        self._inputs = self._prepared(inputs)
        kernel = wide_kernel(self.map_, self._inputs, get=self.get)
        ridge = self.ridge * float(kernel.diagonal().mean())
        eye = torch.eye(len(kernel), dtype=torch.float64)
        self.weights_ = ntk_predict(kernel, targets, eye, ridge=ridge).mean  # one for each training input

    def _prepared(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean_) / self.scale_

    def _scores(self, x: Any) -> Tensor:
        name = type(self).__name__
        if not hasattr(self, "weights_"):
            raise not_fitted(name)
        inputs, names = matrix(x, name), column_names(x)
        fitted = getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and not np.array_equal(names, fitted):
            raise InputError(
                "The feature names should match those that were passed during fit, in the same order, got "
                f"{', '.join(names[:5])} for {', '.join(fitted[:5])}"
            )
        if inputs.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {inputs.shape[1]} features, but {name} is expecting {self.n_features_in_} features as input"
            )
        return wide_kernel(self.map_, self._prepared(inputs), self._inputs, get=self.get) @ self.weights_


class NTKClassifier(_KernelEstimator):
    """Classifier by the tangent kernel of an infinitely wide network: one-vs-rest least squares with a ridge.

    It is a strong baseline on small tables and small images, and needs no hyperparameter search. It works inside
    `cross_val_score`, `GridSearchCV` and pipelines.

    Args:
        network: Activation of a plain network at criticality, or any map of kernels (`infinite_width(module)`).
        depth: Number of layers of weights of the plain network.
        ridge: Number added to the diagonal of the kernel, relative to its mean.
        get: `"tangent"`, or `"kernel"` for the Gaussian process of the untrained network.
        standardize: Whether to standardize features by the mean and standard deviation of the training data.
            Activations without a closed form (tanh) are fast only for inputs of one norm: apply a `Normalizer` first
            and turn this off.

    Example:
        >>> x = torch.randn(64, 3)
        >>> y = (x[:, 0] > 0).long()
        >>> NTKClassifier().fit(x, y).score(x, y)
        1.0
    """

    _kind = "classifier"

    def fit(self, X: Any, y: Any) -> NTKClassifier:
        """Fit the classifier.

        Args:
            X: Inputs `(rows, features)`, array or tensor.
            y: Labels `(rows,)`, array or tensor.

        Raises:
            InputError: For shapes that don't match, values that are not finite, continuous targets, or a single class.
        """
        self.classes_, codes = labels(y, type(self).__name__)
        hot = torch.nn.functional.one_hot(torch.from_numpy(codes).long(), len(self.classes_)).double()
        self._fit(X, hot - 1 / len(self.classes_))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores `(rows, classes)`; for two classes the second minus the first, `(rows,)`.

        Args:
            X: Inputs `(rows, features)`.
        """
        scores = self._scores(X).numpy()
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return estimates of the probabilities of the classes, `(rows, classes)`.

        Least squares on indicators estimates probabilities; negative ones are set to zero. They are not calibrated:
        wrap the classifier in `sklearn.calibration.CalibratedClassifierCV` where that matters.

        Args:
            X: Inputs `(rows, features)`.
        """
        shares = (self._scores(X) + 1 / len(self.classes_)).clamp(min=0).numpy()
        return shares / shares.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return predicted labels `(rows,)`.

        Args:
            X: Inputs `(rows, features)`.
        """
        best = self._scores(X).argmax(1).numpy()
        return self.classes_[best]

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy.

        Args:
            X: Inputs `(rows, features)`.
            y: Labels `(rows,)`.
        """
        return accuracy(self.predict(X), y)


class NTKRegressor(_KernelEstimator):
    """Regressor by the tangent kernel of an infinitely wide network: kernel ridge regression.

    Args:
        network: Activation of a plain network at criticality, or any map of kernels (`infinite_width(module)`).
        depth: Number of layers of weights of the plain network.
        ridge: Number added to the diagonal of the kernel, relative to its mean.
        get: `"tangent"`, or `"kernel"` for the Gaussian process of the untrained network.
        standardize: Whether to standardize features by the mean and standard deviation of the training data.

    Example:
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> NTKRegressor().fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.9
        True
    """

    _kind = "regressor"

    def fit(self, X: Any, y: Any) -> NTKRegressor:
        """Fit the regressor.

        Args:
            X: Inputs `(rows, features)`, array or tensor.
            y: Targets `(rows,)` or `(rows, outputs)`, array or tensor.

        Raises:
            InputError: For shapes that don't match, or values that are not finite.
        """
        targets = numbers(y, type(self).__name__)
        self._flat = targets.ndim == 1
        targets = targets[:, None] if self._flat else targets
        self._shift = targets.mean(0)
        self._fit(X, targets - self._shift)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions in the shape of the targets.

        Args:
            X: Inputs `(rows, features)`.
        """
        scores = self._scores(X)
        found = (scores + self._shift).numpy()
        return found[:, 0] if self._flat else found

    def score(self, X: Any, y: Any) -> float:
        """Return the coefficient of determination $R^2$.

        Args:
            X: Inputs `(rows, features)`.
            y: Targets in the shape of those of `fit`.
        """
        return r_squared(self.predict(X), y)


def _critical(activation: str, depth: int) -> KernelMap:
    act = Activation(activation)
    point = critical_point(act)
    return plain_network(act, depth, Dense(point.bias_variance, point.weight_variance, 1.0, 1.0))
