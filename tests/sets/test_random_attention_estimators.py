"""Estimators on random attention features: scikit-learn's checks, ragged sets, streams, and refused input."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.sets import RandomAttentionClassifier, RandomAttentionRegressor
from depth import some

checks = pytest.importorskip("sklearn.utils.estimator_checks")
exceptions = pytest.importorskip("sklearn.exceptions")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they do not inherit from BaseEstimator, which the library does not import
    every_check = checks.parametrize_with_checks([RandomAttentionClassifier(32), RandomAttentionRegressor(32)])
NAMES, CHECKS = every_check.args
CHECKS = some(CHECKS, family=lambda case: getattr(case[1], "func", case[1]).__name__)  # of one of both estimators


@pytest.mark.parametrize(NAMES, CHECKS, **every_check.kwargs)
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn(estimator, check, unchecked):
    check(estimator)


def bags(count=120, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for n in sizes]


def energy(sets):
    return torch.stack([s.square().sum(1).mean() for s in sets])


def test_ragged_sets_are_learned():
    train, test = bags(400), bags(100, seed=1)
    model = RandomAttentionRegressor(128).fit(train, energy(train))
    assert model.score(test, energy(test)) > 0.95


def test_the_order_of_elements_and_of_sets_does_not_matter():
    sets, y = bags(), energy(bags())
    wanted = RandomAttentionRegressor(32).fit(sets, y).predict(sets)
    flipped = [s.flip(0) for s in sets]
    np.testing.assert_allclose(RandomAttentionRegressor(32).fit(flipped, y).predict(sets), wanted, atol=1e-6)
    back = RandomAttentionRegressor(32).fit(sets[::-1], y.flip(0)).predict(sets)
    np.testing.assert_allclose(back, wanted, atol=1e-6)


def test_a_prediction_does_not_depend_on_the_other_sets():
    sets = bags()
    model = RandomAttentionRegressor(32).fit(sets, energy(sets))
    np.testing.assert_allclose(model.predict(sets)[:1], model.predict(sets[:1]), atol=1e-9)


def test_arrays_and_lists_are_the_same_sets():
    x = torch.randn(30, 4, 2, dtype=torch.float64)
    y = x.square().mean((1, 2))
    wanted = RandomAttentionRegressor(32).fit(x, y).predict(x)
    for given in (x.numpy(), list(x), [s.numpy() for s in x], x.tolist()):
        np.testing.assert_allclose(RandomAttentionRegressor(32).fit(given, y.numpy()).predict(given), wanted)
    rows = x[:, 0]
    one = RandomAttentionRegressor(32).fit(rows, y).predict(rows)
    np.testing.assert_allclose(RandomAttentionRegressor(32).fit(rows[:, None], y).predict(rows[:, None]), one)


def test_queries_matter_where_the_target_depends_on_them():
    generator = torch.Generator().manual_seed(0)
    query, keys = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((500, 4), (500, 6, 4)))
    y = (query[:, None] * keys).sum(2).mean(1)
    train, test = slice(400), slice(400, None)
    with_query = RandomAttentionRegressor(128, bias="identity").fit(keys[train], y[train], query[train])
    without = RandomAttentionRegressor(128).fit(keys[train], y[train])
    assert with_query.score(keys[test], y[test], query[test]) > 0.8
    assert without.score(keys[test], y[test]) < 0.3


def test_a_stream_gives_the_fit_of_the_whole():
    sets = bags(400)
    y = energy(sets)
    stream = RandomAttentionRegressor(8, standardize=False, penalties=1e-6)
    for rows in (slice(0, 100), slice(100, 400)):
        stream.partial_fit(sets[rows], y[rows])
    whole = RandomAttentionRegressor(8, standardize=False, penalties=1e-6).fit(sets, y)
    np.testing.assert_allclose(stream.predict(sets), whole.predict(sets), atol=1e-8)


def test_classes_may_be_words():
    sets = [s + 2 * (i % 3) for i, s in enumerate(bags(150))]
    y = [("a", "b", "c")[i % 3] for i in range(150)]
    model = RandomAttentionClassifier(64).fit(sets, y)
    assert list(model.classes_) == ["a", "b", "c"]
    assert model.decision_function(sets).shape == (150, 3)
    assert model.score(sets, y) > 0.95
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(sets), model.predict(sets))


def test_several_outputs():
    sets = bags()
    y = torch.stack([energy(sets), torch.stack([s.mean() for s in sets])], 1)
    assert RandomAttentionRegressor(64).fit(sets, y).predict(sets).shape == (120, 2)


def broken(at, value):
    sets = bags(10)
    sets[at][0, 0] = value
    return sets


REFUSED = {
    "an empty set": (lambda: RandomAttentionRegressor().fit([*bags(3), torch.zeros(0, 3)], range(4)), "set 3 is empty"),
    "no sets": (lambda: RandomAttentionRegressor().fit([], []), "0 sample|at least|shape"),
    "NaN": (lambda: RandomAttentionRegressor().fit(broken(4, float("nan")), range(10)), "set 4 holds NaN"),
    "infinity": (
        lambda: RandomAttentionRegressor().fit(broken(0, float("inf")), range(10)),
        "set 0 holds NaN or an inf",
    ),
    "other widths": (
        lambda: RandomAttentionRegressor().fit([torch.ones(2, 3), torch.ones(2, 4)], [0, 1]),
        "set 1 has 4 features, and set 0 has 3",
    ),
    "words": (lambda: RandomAttentionRegressor().fit([[["a", "b"]], [["c", "d"]]], [0, 1]), "set 0 must hold numbers"),
    "too few targets": (lambda: RandomAttentionRegressor().fit(bags(5), range(4)), "got 5 sets and 4 targets"),
    "too few queries": (
        lambda: RandomAttentionRegressor().fit(bags(5), range(5), torch.ones(4, 2)),
        "queries must have a row for each of 5 sets, got 4 rows",
    ),
    "one class": (lambda: RandomAttentionClassifier().fit(bags(4), [1] * 4), "at least two classes, got 1 class"),
    "a penalty of zero": (lambda: RandomAttentionRegressor(penalties=0.0).fit(bags(5), range(5)), "positive numbers"),
    "half a head": (lambda: RandomAttentionRegressor(1.5).fit(bags(5), range(5)), "num_heads must be a whole number"),
    "another bias": (lambda: RandomAttentionRegressor(bias="x").fit(bags(5), range(5)), "bias must be None"),
    "features that changed": (
        lambda: RandomAttentionRegressor(8).fit(bags(5), range(5)).predict(bags(5, d=2)),
        "X has 2 features, but RandomAttentionRegressor is expecting 3",
    ),
    "queries that changed": (
        lambda: RandomAttentionRegressor(8).fit(bags(5), range(5), torch.ones(5, 2)).predict(bags(5)),
        "queries have 3 features, but RandomAttentionRegressor is expecting 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_calls_get_one_sentence(case, unchecked):
    make, says = REFUSED[case]
    with pytest.raises(InputError, match=says) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_an_estimator_that_is_not_fitted_says_so():
    with pytest.raises(InputError, match="not fitted") as raised:
        RandomAttentionRegressor().predict(bags(2))
    assert isinstance(raised.value, exceptions.NotFittedError)
