"""Estimator that learns from examples which subset of a ground set to choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import finite, is_real, is_whole, one_of, positive, whole
from .._errors import InputError
from .._estimators import Estimator, not_fitted
from ..algebra import Monoid
from ._ragged import as_sets, names_of_features
from ._set_utility import Background
from ._subset_training import FittedSelector
from ._subsets import jaccard, read_subsets

_LARGEST_EXACT = 16
Inference = Literal["mean-field", "independent", "copula", "exact"]


class SubsetSelector(Estimator):
    r"""Selector of subsets, which learns from ground sets with their optimal subsets.

    It fits a utility F(S; V) with $p(S \mid V) \propto e^{F(S; V)}$, so the choice of an element depends on the other
    chosen ones and on the ground set. The size of the subset is predicted too. Use it where chosen elements interact;
    where each element can be judged against the ground set alone, a trained tagger is simpler and may be better. See
    the claims for both.

    Args:
        hidden_features: Width of the encoder; the utility is twice as wide.
        encoder: Module from standardized elements `(elements, features)` in float32 to `(elements, hidden_features)`;
            by default an MLP with one hidden layer. It is copied.
        background: How the ground set enters the utility, as for `SetUtility`.
        pool: Pool of the utility, as for `SetUtility`.
        inference: `"mean-field"` from the mean share of chosen elements; `"independent"` or `"copula"` from an
            amortized network; `"exact"` for the likelihood itself, by enumeration of the subsets of at most 16
            elements.
        n_iter: Number of mean-field iterations.
        n_samples: Number of sampled subsets in training; predictions use 16 times as many.
        negatives: Number of unchosen elements in the loss for each chosen one; None for all.
        epochs: Largest number of epochs.
        patience: Number of epochs without a better held-out likelihood after which training stops.
        batch_size: Number of ground sets per step.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
        validation_fraction: Share of the ground sets that is held out, to choose the epoch and to calibrate scores.
        random_state: Seed.

    Attributes:
        history_: Training loss of each epoch, and the negative log-likelihood of held-out subsets.
        utility_: Trained `SetUtility`; it takes standardized elements.

    References:
        Xie et al. (2024), "Enhancing Neural Subset Selection"; Ou et al. (2022), "Learning Neural Set Functions Under
        the Optimal Subset Oracle".

    Example:
        >>> sets = [torch.randn(6, 2) for _ in range(40)]
        >>> subsets = [s[:, 0] > s[:, 0].mean() for s in sets]
        >>> selector = SubsetSelector(16, epochs=5).fit(sets, subsets)
        >>> selector.predict(sets[:1], k=2)[0].sum()
        np.int64(2)
    """

    def __init__(
        self,
        hidden_features: int = 64,
        *,
        encoder: nn.Module | None = None,
        background: Background = "complement",
        pool: Literal["sum", "mean"] | Monoid = "sum",
        inference: Inference = "mean-field",
        n_iter: int = 1,
        n_samples: int = 5,
        negatives: float | None = 1.0,
        epochs: int = 100,
        patience: int = 20,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-5,
        validation_fraction: float = 0.15,
        random_state: int = 0,
    ) -> None:
        self.hidden_features, self.encoder, self.background, self.pool = hidden_features, encoder, background, pool
        self.inference, self.n_iter, self.n_samples, self.negatives = inference, n_iter, n_samples, negatives
        self.epochs, self.patience, self.batch_size = epochs, patience, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.validation_fraction, self.random_state = validation_fraction, random_state

    def fit(self, X: Any, y: Any) -> SubsetSelector:
        """Learn from ground sets and their optimal subsets.

        Args:
            X: List of ground sets, each `(size, features)`, of any sizes; or an array `(sets, size, features)`.
            y: List of subsets: booleans, one for each element, or positions of the chosen elements.

        Raises:
            InputError: For shapes that don't match, empty ground sets, values that are not finite, fewer than four
                sets, or subsets that are all empty or all whole.
        """
        self._check_arguments()
        x, sizes = _ground_sets(X)
        chosen = read_subsets(y, sizes, "SubsetSelector")
        if len(sizes) < 4:
            raise InputError(f"SubsetSelector needs at least 4 sets, of which some are held out, got {len(sizes)}")
        if not bool(chosen.any()) or bool(chosen.all()):
            what = "every element" if bool(chosen.any()) else "no element"
            raise InputError(f"the subsets choose {what}; nothing can be learned from them")
        if self.inference == "exact":
            _check_sizes(sizes)
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.random_state)
            fitted = FittedSelector(SimpleNamespace(**self.get_params()), x)
            fitted.train(x, sizes, chosen)
        self.__dict__.pop("feature_names_in_", None)
        names = names_of_features(X)
        if names is not None:
            self.feature_names_in_ = names
        self.n_features_in_, self.utility_, self.history_, self._fit = (
            x.shape[1],
            fitted.utility,
            fitted.history,
            fitted,
        )
        return self

    def decision_function(self, X: Any) -> list[np.ndarray]:
        """Return the log-odds that each element is chosen, an array for each set.

        They are calibrated on the held-out sets, with exact inference excepted, whose likelihood is that of the model.

        Args:
            X: Ground sets, as for `fit`.
        """
        x, sizes = self._read(X)
        return _split(self._fit.scores(x, sizes), sizes)

    def predict_proba(self, X: Any, k: Any = None) -> list[np.ndarray]:
        """Return the probability that each element is chosen, an array for each set.

        Args:
            X: Ground sets, as for `fit`.
            k: Size of the subsets, one for all sets or one each, on which the probabilities are conditioned. Their sum
                is then k.
        """
        x, sizes = self._read(X)
        wanted = None if k is None else _read_counts(k, sizes)
        return _split(self._fit.probabilities(x, sizes, wanted), sizes)

    def predict(self, X: Any, k: Any = None) -> list[np.ndarray]:
        """Return the chosen subset of each set as booleans.

        With `inference="exact"` and no size it is the most probable subset, which tends to be small where elements are
        uncertain. Otherwise the most probable size is chosen first, and then the most probable elements.

        Args:
            X: Ground sets, as for `fit`.
            k: Size of the subsets, one for all sets or one each; by default chosen for each set.
        """
        x, sizes = self._read(X)
        wanted = None if k is None else _read_counts(k, sizes)
        return _split(self._fit.choose(x, sizes, wanted), sizes)

    def score(self, X: Any, y: Any) -> float:
        """Return the mean Jaccard coefficient of predicted and optimal subsets, with predicted sizes.

        Args:
            X: Ground sets, as for `fit`.
            y: Subsets, as for `fit`.
        """
        x, sizes = self._read(X)
        wanted = read_subsets(y, sizes, "SubsetSelector")
        return float(jaccard(self._fit.choose(x, sizes, None), wanted, sizes).mean())

    def _read(self, X: Any) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "_fit"):
            raise not_fitted("SubsetSelector")
        x, sizes = _ground_sets(X)
        names, fitted = names_of_features(X), getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and not np.array_equal(names, fitted):
            raise InputError("The feature names should match those that were passed during fit, in the same order")
        if x.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {x.shape[1]} features, but SubsetSelector is expecting {self.n_features_in_} features"
            )
        if self._fit.exact:
            _check_sizes(sizes)
        return x, sizes

    def _check_arguments(self) -> None:
        for name in ("hidden_features", "n_iter", "n_samples", "epochs", "patience", "batch_size"):
            whole(name, getattr(self, name))
        whole("random_state", self.random_state, 0)
        if self.random_state >= 2**63:
            raise InputError(f"random_state must be below 2**63, got {self.random_state}")
        one_of("inference", self.inference, ("mean-field", "independent", "copula", "exact"))
        positive("learning_rate", self.learning_rate)
        finite("weight_decay", self.weight_decay)
        if self.weight_decay < 0:
            raise InputError(f"weight_decay must not be negative, got {self.weight_decay}")
        if self.negatives is not None:
            positive("negatives", self.negatives)
        if not is_real(self.validation_fraction) or not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}")
        if self.encoder is not None and not isinstance(self.encoder, nn.Module):
            raise InputError(f"encoder must be a module or None, got {type(self.encoder).__name__}")


def _check_sizes(sizes: Tensor) -> None:
    """Check that the subsets of every ground set can be enumerated."""
    if int(sizes.max()) > _LARGEST_EXACT:
        raise InputError(
            f"inference='exact' enumerates the subsets of at most {_LARGEST_EXACT} elements, got a set of "
            f"{int(sizes.max())}; use inference='mean-field'"
        )


def _ground_sets(X: Any) -> tuple[Tensor, Tensor]:
    """Return the elements and the sizes of ground sets; one table would be read as sets of one element each."""
    if hasattr(X, "columns") or getattr(X, "ndim", 0) == 2:
        raise InputError(f"X must be a list of ground sets, got one of shape {tuple(X.shape)}; pass [X]")
    if getattr(X, "ndim", 0) > 3 or (isinstance(X, list | tuple) and any(getattr(s, "ndim", 0) > 2 for s in X)):
        raise InputError(
            "ground sets must have shape (size, features); flatten images, and reshape them in the encoder"
        )
    return as_sets(list(X) if isinstance(X, Iterator) else X, "SubsetSelector")


def _read_counts(k: Any, sizes: Tensor) -> Tensor:
    given: Any = k.tolist() if isinstance(k, Tensor | np.ndarray) else k
    if isinstance(given, list | tuple):
        given = [int(n) if isinstance(n, Tensor) and n.dim() == 0 and not n.is_floating_point() else n for n in given]
    given = [given] * len(sizes) if is_whole(given) else given
    if not isinstance(given, Sequence) or len(given) != len(sizes) or not all(is_whole(n) for n in given):
        raise InputError(f"k must be a whole number or one for each of {len(sizes)} sets, got {k!r:.60}")
    for i, (n, size) in enumerate(zip(given, sizes.tolist(), strict=True)):
        if not 0 <= n <= size:
            raise InputError(f"k must be between 0 and the number of elements, got {n} for set {i} of {size} elements")
    return torch.tensor(given)


def _split(values: Tensor, sizes: Tensor) -> list[np.ndarray]:
    return [part.numpy() for part in values.split(sizes.tolist())]
