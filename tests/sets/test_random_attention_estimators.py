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


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
@pytest.mark.parametrize("heads", [8, 200])
def test_a_stream_gives_the_fit_of_the_whole(first, heads):
    sets = bags(400)
    y = energy(sets)
    options = {"standardize": False, "penalties": 1e-4}
    stream = getattr(RandomAttentionRegressor(heads, **options), first)(sets[:100], y[:100]).partial_fit(
        sets[100:], y[100:]
    )
    whole = RandomAttentionRegressor(heads, **options).fit(sets, y)
    np.testing.assert_allclose(stream.predict(sets), whole.predict(sets), atol=1e-7)


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


def streamed():
    return RandomAttentionRegressor(8).partial_fit(bags(5), range(5))


class Frame:
    """Stand-in for a data frame."""

    ndim = 2

    def __init__(self, columns):
        self.columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.arange(6.0).reshape(3, 2)

    def __len__(self):
        return 3


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
        "queries must have one row for each of 5 sets, got 4",
    ),
    "one class": (lambda: RandomAttentionClassifier().fit(bags(4), [1] * 4), "at least two classes, got 1 class"),
    "a penalty of zero": (lambda: RandomAttentionRegressor(penalties=0.0).fit(bags(5), range(5)), "positive numbers"),
    "half a head": (lambda: RandomAttentionRegressor(1.5).fit(bags(5), range(5)), "num_heads must be a whole number"),
    "another bias": (lambda: RandomAttentionRegressor(bias="x").fit(bags(5), range(5)), "bias must be None"),
    "features that changed": (
        lambda: RandomAttentionRegressor(8).fit(bags(5), range(5)).predict(bags(5, d=2)),
        "X has 2 features, but RandomAttentionRegressor is expecting 3",
    ),
    "queries that were forgotten": (
        lambda: RandomAttentionRegressor(8).fit(bags(5), range(5), torch.ones(5, 3)).predict(bags(5)),
        "was fitted with queries and is called without",
    ),
    "queries that are new": (
        lambda: RandomAttentionRegressor(8).fit(bags(5), range(5)).predict(bags(5), torch.ones(5, 3)),
        "was fitted without queries and is called with",
    ),
    "queries with NaN": (
        lambda: RandomAttentionRegressor(8).fit(bags(2), range(2), torch.full((2, 2), float("nan"))),
        "queries: X must be finite",
    ),
    "a stream with other heads": (
        lambda: streamed().set_params(num_heads=9).partial_fit(bags(5), range(5)),
        "arguments were changed since the last fit",
    ),
    "complex sets": (lambda: RandomAttentionRegressor(8).fit([s + 1j for s in bags(5)], range(5)), "real numbers"),
    "sets that are vectors": (
        lambda: RandomAttentionRegressor(8).fit([torch.ones(2), torch.ones(3)], [0, 1]),
        "rectangular",
    ),
    "vectors and matrices": (
        lambda: RandomAttentionRegressor(8).fit([torch.ones(2, 3), torch.ones(3)], [0, 1]),
        r"set 1 must have shape \(size, features\), got \(3,\)",
    ),
    "a set without features": (lambda: RandomAttentionRegressor(8).fit([torch.ones(2, 0)] * 2, [0, 1]), "no features"),
    "columns in another order": (
        lambda: RandomAttentionRegressor(8).fit([Frame(["a", "b"]), Frame(["b", "a"])], [0, 1]),
        "the columns of set 1 are not those of set 0",
    ),
    "other columns in a prediction": (
        lambda: RandomAttentionRegressor(8).fit([Frame(["a", "b"])] * 3, range(3)).predict([Frame(["b", "a"])]),
        "feature names should match",
    ),
    "queries that changed": (
        lambda: RandomAttentionRegressor(8).fit(bags(5), range(5), torch.ones(5, 2)).predict(bags(5), torch.ones(5, 3)),
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


def test_centered_sets_have_no_query_but_rounding():
    sets = [s - s.mean(0) for s in bags(200)]
    y = energy(sets)
    model = RandomAttentionRegressor(32).fit(sets, y)
    flipped = [s.flip(0) for s in sets]
    np.testing.assert_allclose(model.predict(flipped), model.predict(sets), atol=1e-8)


def test_a_constant_column_is_not_divided_by_its_rounding():
    sets = [torch.cat([s, torch.full((len(s), 1), 0.1, dtype=torch.float64)], 1) for s in bags(200)]
    y = energy(sets)
    model = RandomAttentionRegressor(32).fit(sets, y)
    near = [s + torch.tensor([0, 0, 0, 1e-9]) for s in sets]
    np.testing.assert_allclose(model.predict(near), model.predict(sets), atol=1e-6)


def test_queries_have_a_scale_of_their_own():
    sets, generator = bags(100, d=2), torch.Generator().manual_seed(1)
    query = 1000 + 50 * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    y = energy(sets)
    wanted = RandomAttentionRegressor(16).fit(sets, y, query).predict(sets, query)
    shifted = query / 7 - 3
    found = RandomAttentionRegressor(16).fit(sets, y, shifted).predict(sets, shifted)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_call_that_fails_changes_nothing():
    sets, y = bags(60), energy(bags(60))
    model = RandomAttentionRegressor(8).fit(sets, y)
    before = model.predict(sets)
    with pytest.raises(InputError):
        model.set_params(penalties=-1.0).fit([5 * s + 3 for s in sets], y)
    np.testing.assert_array_equal(model.predict(sets), before)
    classifier = RandomAttentionClassifier(8).fit(sets, ["a", "b"] * 30)
    with pytest.raises(InputError):
        classifier.fit(sets[:3], ["x", "y"])
    assert set(classifier.predict(sets)) <= {"a", "b"}
    stream = RandomAttentionRegressor(8, penalties=-1.0)
    with pytest.raises(InputError):
        stream.partial_fit(sets, y)
    assert stream.set_params(penalties=1e-3).partial_fit(sets, y)._seen.rows == 60


def test_objects_in_an_array_are_sets():
    sets = bags(10)
    array = np.empty(10, dtype=object)
    for i, s in enumerate(sets):
        array[i] = s.numpy()
    wanted = RandomAttentionRegressor(8).fit(sets, range(10)).predict(sets)
    np.testing.assert_allclose(RandomAttentionRegressor(8).fit(array, range(10)).predict(array), wanted)


@pytest.mark.parametrize("penalties", [np.float32(0.1), 1, torch.tensor(0.1), np.logspace(-3, 0, 3), [0.1, 0.2]])
def test_penalties_of_every_kind(penalties, unchecked):
    model = RandomAttentionRegressor(8, penalties=penalties).fit(bags(20), range(20))
    assert isinstance(model.penalty_, float)
    assert "penalties" in repr(model)
