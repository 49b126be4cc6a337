"""Estimators under scikit-learn's own checks, their probabilities, and refused arguments."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.algebra import Activation
from commutant.theory import Dense, NTKClassifier, NTKRegressor, infinite_width
from depth import some

checks = pytest.importorskip("sklearn.utils.estimator_checks")
exceptions = pytest.importorskip("sklearn.exceptions")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)), RNG.integers(0, 3, 40)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they do not inherit from BaseEstimator, which the library does not import
    every_check = checks.parametrize_with_checks([NTKClassifier(), NTKRegressor()])
NAMES, CHECKS = every_check.args
CHECKS = some(CHECKS, family=lambda case: getattr(case[1], "func", case[1]).__name__)  # of one of both estimators


@pytest.mark.parametrize(NAMES, CHECKS, **every_check.kwargs)
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn(estimator, check, unchecked):
    check(estimator)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_least_squares(classes):
    y = Y % classes
    model = NTKClassifier(ridge=0.1).fit(X, y)
    at = RNG.normal(size=(200, 3))
    shares = model.predict_proba(at)
    assert shares.shape == (200, classes)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (shares >= 0).all()
    np.testing.assert_array_equal(model.classes_[shares.argmax(1)], model.predict(at))
    # The same as regression on each indicator, where none is negative.
    each = np.stack([NTKRegressor(ridge=0.1).fit(X, y == c).predict(at) for c in range(classes)], 1)
    inside = (each >= 0).all(1)
    assert inside.sum() > 20
    assert np.corrcoef(each[inside].ravel(), shares[inside].ravel())[0, 1] > 0.95


def test_an_estimator_that_is_not_fitted_says_so_in_both_languages():
    for call in (NTKClassifier().predict, NTKClassifier().predict_proba, NTKRegressor().predict):
        with pytest.raises(InputError, match="not fitted") as raised:
            call(X)
        assert isinstance(raised.value, exceptions.NotFittedError)


class Frame:
    """Stand-in for a data frame."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype) if dtype else self.values


def test_columns_in_another_order_are_refused():
    model = NTKRegressor().fit(Frame(X, ["a", "b", "c"]), X[:, 0])
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(model.predict(Frame(X, ["a", "b", "c"])), model.predict(X))
    with pytest.raises(InputError, match="feature names should match"):
        model.predict(Frame(X, ["b", "a", "c"]))
    assert not hasattr(model.fit(X, X[:, 0]), "feature_names_in_")


def test_tensors_of_every_kind():
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    wanted = NTKClassifier().fit(X, Y).decision_function(X)
    for given in (x, x.clone().requires_grad_(), x.tolist()):
        np.testing.assert_allclose(NTKClassifier().fit(given, y).decision_function(given), wanted)
    low = NTKClassifier().fit(x.to(torch.bfloat16), y).decision_function(x.to(torch.bfloat16))
    np.testing.assert_allclose(low, wanted, atol=0.1)
    assert NTKRegressor().fit(x, x[:, 0].clone().requires_grad_()).score(x, x[:, 0].requires_grad_()) > 0.99


REFUSED = {
    "continuous targets": (lambda: NTKClassifier().fit(X, X[:, 0]), "Unknown label type: continuous"),
    "labels of two types": (lambda: NTKClassifier().fit(X, np.array(["a", 1] * 20, dtype=object)), "one type"),
    "two columns of labels": (lambda: NTKClassifier().fit(X, np.stack([Y, Y], 1)), r"shape \(rows,\)"),
    "labels that are NaN": (lambda: NTKClassifier().fit(X, np.where(Y == 0, np.nan, Y)), "finite"),
    "complex inputs": (lambda: NTKClassifier().fit(X + 1j, Y), "Complex data not supported"),
    "a complex tensor": (lambda: NTKRegressor().fit(torch.from_numpy(X) + 1j, Y), "Complex data not supported"),
    "complex targets": (lambda: NTKRegressor().fit(X, Y + 1j), "Complex data not supported"),
    "a sparse tensor": (lambda: NTKRegressor().fit(torch.from_numpy(X).to_sparse(), Y), "sparse"),
    "words": (lambda: NTKRegressor().fit(X.astype(str).astype(object) + "x", Y), "must hold numbers"),
    "no targets": (lambda: NTKRegressor().fit(X, None), "requires y"),
    "no rows": (lambda: NTKRegressor().fit(X[:0], Y[:0]), r"0 sample\(s\)|at least|shape \(0,\)"),
    "no features": (lambda: NTKRegressor().fit(X[:, :0], Y), r"0 feature\(s\)"),
    "a vector": (lambda: NTKRegressor().fit(X[:, 0], Y), "Reshape your data"),
    "too few targets": (lambda: NTKRegressor().fit(X, Y[:5]), "equal lengths"),
    "half a layer": (lambda: NTKRegressor(depth=1.5).fit(X, Y), "depth"),
    "depth as text": (lambda: NTKRegressor(depth="3").fit(X, Y), "depth"),
    "a ridge that is NaN": (lambda: NTKRegressor(ridge=float("nan")).fit(X, Y), "ridge"),
    "another kernel": (lambda: NTKRegressor(get="ntk").fit(X, Y), "tangent, kernel"),
    "a module": (lambda: NTKRegressor(nn.Linear(3, 1)).fit(X, Y), "infinite_width"),
    "an activation": (lambda: NTKRegressor(Activation("relu")).fit(X, Y), "map of kernels"),
    "a class of layers": (lambda: NTKRegressor(Dense).fit(X, Y), "map of kernels"),
    "a name that is none": (lambda: NTKRegressor("no such").fit(X, Y), "unknown activation"),
    "a score of one number": (lambda: NTKRegressor().fit(X, Y).score(X, 1.0), "shape of the predictions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_calls_get_one_sentence(case, unchecked):
    make, says = REFUSED[case]
    with pytest.raises(InputError, match=says) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_what_they_print_names_what_was_changed():
    assert repr(NTKClassifier()) == "NTKClassifier()"
    assert repr(NTKRegressor("erf", depth=2)) == "NTKRegressor(network='erf', depth=2)"


def test_a_map_of_kernels_as_the_network():
    net = infinite_width(nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1)))
    assert NTKRegressor(net).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9
