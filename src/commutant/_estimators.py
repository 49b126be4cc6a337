"""Base of estimators in the conventions of scikit-learn, which need not be installed, and checks of their input."""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._errors import InputError


class Estimator:
    """Base of estimators: arguments by name, for clones and searches, and tags."""

    _kind = ""

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if differ(value, defaults[name])]
        return f"{type(self).__name__}({', '.join(changed)})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments by name, as scikit-learn's tools expect.

        Args:
            deep: Ignored, as no argument is an estimator.
        """
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **values: Any) -> Estimator:
        """Change arguments by name.

        Args:
            **values: New values.
        """
        for name, value in values.items():
            if name not in self.get_params():
                raise InputError(f"{type(self).__name__} has no parameter {name!r}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        classifies = self._kind == "classifier"
        return Tags(
            estimator_type=self._kind or None,
            target_tags=TargetTags(required=True, multi_output=not classifies),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=RegressorTags() if self._kind == "regressor" else None,
            transformer_tags=None,
            input_tags=InputTags(),
        )


def differ(a: Any, b: Any) -> bool:
    """Return whether two values of an argument differ; arrays do unless they are the same object."""
    try:
        return a is not b and bool(a != b)
    except (ValueError, RuntimeError):
        return True


def accuracy(found: np.ndarray, y: Any) -> float:
    """Return the share of predicted labels that are right."""
    return float((found == like(y, found)).mean())


def r_squared(found: np.ndarray, y: Any) -> float:
    """Return the coefficient of determination of predicted numbers."""
    y = like(y, found).astype(float)
    missed, spread = ((found - y) ** 2).sum(), ((y - y.mean(0)) ** 2).sum()
    return float(1 - missed / spread) if spread else float(missed == 0)


def like(y: Any, found: np.ndarray) -> np.ndarray:
    """Return targets in the shape of predictions; a column is flattened."""
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if not y.ndim or y.size != found.size or len(y) != len(found):
        raise InputError(f"targets must have the shape of the predictions, {found.shape}, got {y.shape}")
    return y.reshape(found.shape)


def numbers(y: Any, estimator: str) -> Tensor:
    """Return targets `(rows,)` or `(rows, outputs)` in float64."""
    found = target(y, estimator)
    try:
        targets = torch.from_numpy(found.astype(np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"targets must be numbers, got {found.dtype}") from error
    if targets.ndim not in (1, 2) or not len(targets) or not bool(torch.isfinite(targets).all()):
        raise InputError(f"y must hold finite numbers (rows,) or (rows, outputs), got shape {tuple(targets.shape)}")
    return targets


def matrix(x: Any, estimator: str) -> Tensor:
    """Return inputs `(rows, features)` in float64.

    Raises:
        InputError: For inputs of another shape, empty, sparse, complex, or not finite.
        TypeError: For entries that are not numbers.
    """
    if hasattr(x, "toarray") or (isinstance(x, Tensor) and x.layout != torch.strided):
        raise InputError(f"sparse input X is not supported by {estimator}: pass a dense array")
    try:
        values = x.detach().cpu().double().numpy() if isinstance(x, Tensor) and not x.is_complex() else np.asarray(x)
    except (ValueError, RuntimeError) as error:  # rows of different lengths, or tensors with gradients
        raise InputError(f"X must be a rectangular array: {error}".splitlines()[0]) from error
    if values.dtype.kind == "c":
        raise InputError("Complex data not supported: X must hold real numbers")
    try:
        values = values.astype(np.float64)
    except TypeError as error:
        raise TypeError(f"X must hold numbers: {error}") from error
    except ValueError as error:
        raise InputError(f"X must hold numbers: {error}") from error
    if values.ndim != 2:
        raise InputError(
            f"X must be of shape (rows, features), got {values.shape}. Reshape your data: X.reshape(-1, 1) for one "
            "feature, X.reshape(1, -1) for one row"
        )
    for count, what in zip(values.shape, ("sample", "feature"), strict=True):
        if not count:
            raise InputError(f"X has 0 {what}(s) (shape={values.shape}) while a minimum of 1 is required.")
    if not np.isfinite(values).all():
        raise InputError("X must be finite, got NaN or infinity (inf)")
    return torch.from_numpy(values)


def column_names(x: Any) -> np.ndarray | None:
    """Return the names of the features of a data frame, or None."""
    names = [] if getattr(x, "columns", None) is None else list(x.columns)
    return np.asarray(names, dtype=object) if names and all(isinstance(name, str) for name in names) else None


def target(y: Any, estimator: str) -> np.ndarray:
    """Return targets as an array.

    Raises:
        InputError: For targets that are missing, sparse, complex, or not finite.
    """
    if y is None:
        raise InputError(f"{estimator} requires y to be passed, but the target y is None")
    if hasattr(y, "toarray"):
        raise InputError(f"sparse targets y are not supported by {estimator}: pass a dense array")
    if isinstance(y, Tensor):
        y = y.detach().cpu()
        found = (y.float() if y.dtype == torch.bfloat16 else y).numpy()
    else:
        found = np.asarray(y)
    if found.dtype.kind == "c":
        raise InputError("Complex data not supported: y must hold real numbers or labels")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise InputError("y must be finite, got NaN or infinity (inf)")
    return found


def labels(y: Any, estimator: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes and the number of the class of each row.

    Raises:
        InputError: For several columns, labels that can't be sorted, continuous targets, or a single class.
    """
    found = target(y, estimator)
    if found.ndim == 2 and found.shape[1] == 1:
        _warn_column()
        found = found[:, 0]
    if found.ndim != 1:
        raise InputError(f"y must be of shape (rows,), got {found.shape}")
    if found.dtype.kind == "f" and (found != np.floor(found)).any():
        raise InputError("Unknown label type: continuous. A classifier takes classes as y: use a regressor for numbers")
    try:
        classes, codes = np.unique(found, return_inverse=True)
    except TypeError as error:
        raise InputError(f"y must hold labels of one type, such as integers or strings ({error})") from error
    if len(classes) < 2:
        raise InputError(f"classification needs at least two classes, got {len(classes)} class")
    return classes, codes.ravel()


def not_fitted(estimator: str) -> InputError:
    """Return the error of an estimator that is not fitted, also a scikit-learn error where that is installed."""
    kind = _of_sklearn("NotFittedError")
    error = InputError if kind is None else type("NotFittedError", (InputError, kind), {})
    return error(f"This {estimator} instance is not fitted yet: call fit first")


def _warn_column() -> None:
    warnings.warn(
        "A column-vector y was passed when a 1d array was expected: pass y.ravel()",
        _of_sklearn("DataConversionWarning") or UserWarning,
        stacklevel=4,
    )


def _of_sklearn(name: str) -> Any:
    try:
        return getattr(importlib.import_module("sklearn.exceptions"), name)
    except ImportError:
        return None
