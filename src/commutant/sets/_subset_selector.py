"""Estimator that learns from examples which subset of a ground set to choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import finite, is_whole, one_of, positive, whole
from .._errors import InputError
from .._estimators import Estimator, not_fitted
from ..algebra import Monoid
from ._ragged import as_sets, names_of_features
from ._set_utility import Background
from ._subset_training import FittedSelector
from ._subsets import jaccard, read_subsets

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
        pool: Pool of the utility, as for `SetUtility`; `"mean"` for ground sets that are larger than in training.
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

    _kind = "classifier"

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
        x, sizes = as_sets(X, "SubsetSelector")
        chosen = read_subsets(y, sizes, "SubsetSelector")
        if len(sizes) < 4:
            raise InputError(f"SubsetSelector needs at least 4 sets, of which some are held out, got {len(sizes)}")
        if not bool(chosen.any()) or bool(chosen.all()):
            what = "every element" if bool(chosen.any()) else "no element"
            raise InputError(f"the subsets choose {what}; nothing can be learned from them")
        if self.inference == "exact" and int(sizes.max()) > 16:
            raise InputError(
                f"inference='exact' enumerates the subsets of at most 16 elements, got a set of {int(sizes.max())}; "
                "use inference='mean-field'"
            )
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.random_state)
            fitted = FittedSelector(self, x, sizes, chosen)
            fitted.train()
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
        """Return the calibrated log-odds that each element is chosen, an array for each set.

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

        Args:
            X: Ground sets, as for `fit`.
            k: Size of the subsets, one for all sets or one each; by default the most probable one.
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
        x, sizes = as_sets(X, "SubsetSelector")
        names, fitted = names_of_features(X), getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and not np.array_equal(names, fitted):
            raise InputError("The feature names should match those that were passed during fit, in the same order")
        if x.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {x.shape[1]} features, but SubsetSelector is expecting {self.n_features_in_} features"
            )
        if self._fit.exact and int(sizes.max()) > 16:
            raise InputError(
                f"inference='exact' enumerates the subsets of at most 16 elements, got a set of {int(sizes.max())}"
            )
        return x, sizes

    def _check_arguments(self) -> None:
        for name in ("hidden_features", "n_iter", "n_samples", "epochs", "patience", "batch_size"):
            whole(name, getattr(self, name))
        whole("random_state", self.random_state, 0)
        one_of("inference", self.inference, ("mean-field", "independent", "copula", "exact"))
        positive("learning_rate", self.learning_rate)
        finite("weight_decay", self.weight_decay)
        if self.negatives is not None:
            positive("negatives", self.negatives)
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}")
        if self.encoder is not None and not isinstance(self.encoder, nn.Module):
            raise InputError(f"encoder must be a module or None, got {type(self.encoder).__name__}")


def _read_counts(k: Any, sizes: Tensor) -> Tensor:
    given: Any = [k] * len(sizes) if is_whole(k) else k
    if isinstance(given, Tensor | np.ndarray):
        given = given.tolist()
    if not isinstance(given, Sequence) or len(given) != len(sizes) or not all(is_whole(n) for n in given):
        raise InputError(f"k must be a whole number or one for each of {len(sizes)} sets, got {k!r:.60}")
    for i, (n, size) in enumerate(zip(given, sizes.tolist(), strict=True)):
        if not 0 <= n <= size:
            raise InputError(f"k must be between 0 and the number of elements, got {n} for set {i} of {size} elements")
    return torch.tensor(given)


def _split(values: Tensor, sizes: Tensor) -> list[np.ndarray]:
    return [part.numpy() for part in values.split(sizes.tolist())]
