"""Selector of subsets: what it learns, ragged sets, sizes, invariances, and refused input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import Max
from commutant.sets import Conjugated, SubsetSelector, enumerate_subsets
from commutant.sets._enumeration import subsets_of


def above_the_mean(count=160, seed=0):
    """Ground sets of 4 to 7 elements; those whose first feature is above the mean of their set are chosen."""
    rng = np.random.default_rng(seed)
    sets = [rng.standard_normal((rng.integers(4, 8), 2)) + rng.standard_normal(2) * 3 for _ in range(count)]
    return sets, [s[:, 0] > s[:, 0].mean() for s in sets]


TRAIN, TEST = above_the_mean(), above_the_mean(80, seed=1)


@pytest.fixture(scope="module", params=["mean-field", "independent", "copula", "exact"])
def fitted(request):
    return SubsetSelector(32, inference=request.param, epochs=80, batch_size=8, learning_rate=3e-3).fit(*TRAIN)


def overlap(found, wanted):
    return np.mean([(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(found, wanted, strict=True)])


def test_it_learns_a_rule_that_depends_on_the_ground_set(fitted):
    assert fitted.score(*TEST) > 0.7
    assert overlap(fitted.predict(TEST[0], k=[s.sum() for s in TEST[1]]), TEST[1]) > 0.85
    assert overlap(fitted.predict(TEST[0]), TEST[1]) == pytest.approx(fitted.score(*TEST))


def test_scores_are_log_odds(fitted):
    scores = np.concatenate(fitted.decision_function(TEST[0]))
    chosen = np.concatenate(TEST[1])
    probability = 1 / (1 + np.exp(-scores))
    assert abs(probability.mean() - chosen.mean()) < 0.06
    assert np.mean(np.where(chosen, probability, 1 - probability)) > 0.7


def test_results_depend_neither_on_the_order_of_elements_nor_on_other_sets(fitted):
    sets = TEST[0][:6]
    plain = fitted.decision_function(sets)
    for found, s in zip(plain, sets, strict=True):
        np.testing.assert_allclose(fitted.decision_function([s])[0], found, atol=1e-4)
    turned = fitted.decision_function([s[::-1] for s in sets])
    for a, b in zip(turned, plain, strict=True):
        np.testing.assert_allclose(a[::-1], b, atol=1e-4)
    for a, b in zip(fitted.predict([s[::-1] for s in sets]), fitted.predict(sets), strict=True):
        np.testing.assert_array_equal(a[::-1], b)


def test_a_given_size_is_kept(fitted):
    sets = TEST[0][:3]
    assert [s.sum() for s in fitted.predict(sets, k=2)] == [2, 2, 2]
    assert [s.sum() for s in fitted.predict(sets, k=[0, 1, len(sets[2])])] == [0, 1, len(sets[2])]
    assert all(s.dtype == bool for s in fitted.predict(sets))


def test_probabilities_given_a_size_sum_to_it(fitted):
    sets = TEST[0][:5]
    free = fitted.predict_proba(sets)
    for p, scores in zip(free, fitted.decision_function(sets), strict=True):
        np.testing.assert_allclose(p, 1 / (1 + np.exp(-scores)), rtol=1e-5)
    for p, whole in zip(fitted.predict_proba(sets, k=2), free, strict=True):
        assert p.sum() == pytest.approx(2, abs=1e-4)
        if fitted.inference != "exact":  # conditioning keeps the order of independent elements
            assert (np.diff(p[whole.argsort()]) >= -1e-6).all()
    sizes = [len(s) for s in sets]
    assert all((p == 1).all() for p in fitted.predict_proba(sets, k=sizes))


def test_exact_inference_returns_the_most_probable_subset():
    model = SubsetSelector(8, inference="exact", epochs=5).fit(*TRAIN)
    sets = TEST[0][:6]
    for s, found, pair, given in zip(
        sets, model.predict(sets), model.predict(sets, k=2), model.predict_proba(sets, k=2), strict=True
    ):
        x = model._fit._standardized(torch.from_numpy(s))
        table = enumerate_subsets(model.utility_, x)
        np.testing.assert_array_equal(found, table.best().numpy())
        np.testing.assert_array_equal(pair, table.best(2).numpy())
        subsets = subsets_of(len(s))
        weight = torch.where(subsets.sum(1) == 2, table.utilities, -torch.inf).softmax(0)
        np.testing.assert_allclose(given, (weight @ subsets.float()).detach(), atol=1e-5)


def test_a_fit_is_repeatable_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    a, b = (SubsetSelector(8, epochs=2, random_state=5).fit(*TRAIN) for _ in range(2))
    assert torch.equal(torch.rand(2), wanted)
    np.testing.assert_array_equal(a.decision_function(TEST[0][:1])[0], b.decision_function(TEST[0][:1])[0])
    c = SubsetSelector(8, epochs=2, random_state=6).fit(*TRAIN)
    assert np.abs(c.decision_function(TEST[0][:1])[0] - a.decision_function(TEST[0][:1])[0]).max() > 1e-6


def test_a_fit_under_no_grad_and_a_copy():
    with torch.no_grad():
        model = SubsetSelector(8, epochs=2).fit(*TRAIN)
    wanted = model.decision_function(TEST[0][:2])
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.decision_function(TEST[0][:2])[1], wanted[1])


def test_a_fitted_selector_holds_no_data():
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((6, 300)) for _ in range(40)]
    model = SubsetSelector(4, epochs=1).fit(sets, [[0]] * 40)
    for _ in range(3):
        model.fit(sets, [[0]] * 40)
    assert len(pickle.dumps(model)) < 60_000  # weights are 10 kB, the data are 576 kB


@pytest.mark.parametrize("count", [4, 8, 20, 60])
def test_sizes_are_those_of_training_where_nothing_can_be_learned(count):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sets = [rng.standard_normal((10, 3)) for _ in range(count)]
        model = SubsetSelector(4, epochs=2, random_state=seed).fit(
            sets, [[int(rng.integers(10))] for _ in range(count)]
        )
        found = model.predict([rng.standard_normal((10, 3)) for _ in range(40)])
        assert 0.5 <= np.mean([f.sum() for f in found]) <= 2.5


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e8])
def test_any_scale_of_the_features(scale):
    plain = SubsetSelector(16, epochs=8).fit(*TRAIN)
    scaled = SubsetSelector(16, epochs=8).fit([s * scale for s in TRAIN[0]], TRAIN[1])
    for a, b in zip(scaled.predict_proba([s * scale for s in TEST[0]]), plain.predict_proba(TEST[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_monoid_is_copied():
    torch.manual_seed(0)
    pool = Conjugated.of_sum(8)
    before = copy.deepcopy(pool.state_dict())
    first = SubsetSelector(8, pool=pool, epochs=2).fit(*TRAIN)
    wanted = first.decision_function(TEST[0][:1])[0]
    SubsetSelector(8, pool=pool, epochs=2, random_state=1).fit(*TRAIN)
    np.testing.assert_array_equal(first.decision_function(TEST[0][:1])[0], wanted)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), pool.state_dict().values(), strict=True))


def test_other_default_dtypes_modes_and_frozen_encoders():
    encoder = nn.Linear(2, 8).requires_grad_(False)
    with torch.inference_mode():
        SubsetSelector(8, encoder=encoder, epochs=1).fit(*TRAIN)
    torch.set_default_dtype(torch.float64)
    try:
        for inference in ("mean-field", "copula", "exact"):
            model = SubsetSelector(8, inference=inference, epochs=1).fit(*TRAIN)
            assert np.isfinite(model.decision_function(TEST[0][:1])[0]).all()
    finally:
        torch.set_default_dtype(torch.float32)


def test_patience_ends_a_training_that_does_not_improve():
    model = SubsetSelector(4, epochs=60, patience=3, learning_rate=1e-9).fit(*TRAIN)
    assert len(model.history_) < 30
    assert len(SubsetSelector(4, epochs=6, patience=100, learning_rate=1e-9).fit(*TRAIN).history_) == 6


def test_lists_are_cross_validated():
    selection = pytest.importorskip("sklearn.model_selection")
    positions = [np.flatnonzero(s).tolist() for s in TRAIN[1]]
    masks = [s for s, p in zip(TRAIN[1], positions, strict=True) if len(p)]
    scores = selection.cross_val_score(SubsetSelector(8, epochs=1), TRAIN[0][: len(masks)], masks, cv=2)
    assert scores.shape == (2,)


def test_positions_and_masks_are_the_same():
    positions = [np.flatnonzero(s) for s in TRAIN[1]]
    some = [i for i, p in enumerate(positions) if len(p) < len(TRAIN[1][i])]
    a = SubsetSelector(8, epochs=1).fit([TRAIN[0][i] for i in some], [positions[i] for i in some])
    b = SubsetSelector(8, epochs=1).fit([TRAIN[0][i] for i in some], [TRAIN[1][i] for i in some])
    np.testing.assert_array_equal(a.decision_function(TEST[0][:1])[0], b.decision_function(TEST[0][:1])[0])


def test_other_pools_encoders_and_backgrounds():
    encoder = nn.Sequential(nn.Linear(2, 12), nn.Tanh())
    before = copy.deepcopy(encoder.state_dict())
    for options in ({"pool": "mean"}, {"pool": Max()}, {"background": "concat", "n_iter": 2, "negatives": None}):
        model = SubsetSelector(12, encoder=encoder, epochs=20, learning_rate=1e-2, **options).fit(*TRAIN)
        assert model.score(*TEST) > 0.5, options
    assert all(torch.equal(a, b) for a, b in zip(before.values(), encoder.state_dict().values(), strict=True))


def test_larger_ground_sets_than_in_training():
    big = [np.random.default_rng(0).standard_normal((60, 2)), TEST[0][0]]
    found = SubsetSelector(8, pool="mean", epochs=2).fit(*TRAIN).predict(big)
    assert [len(f) for f in found] == [60, len(TEST[0][0])]


def test_duplicates_and_constant_features():
    sets = [np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])] * 12
    subsets = [np.array([True, True, False])] * 12
    model = SubsetSelector(8, epochs=60, learning_rate=1e-2, batch_size=4).fit(sets, subsets)
    assert model.predict(sets[:1], k=1)[0].sum() == 1  # either of the equal elements
    assert model.predict(sets[:1], k=2)[0].tolist() == [True, True, False]


def test_empty_and_whole_subsets_among_others():
    sets = [np.random.default_rng(i).standard_normal((3, 2)) for i in range(12)]
    subsets = [np.array([i % 3 == 0] * 3) for i in range(12)]
    assert np.isfinite(np.concatenate(SubsetSelector(8, epochs=3).fit(sets, subsets).decision_function(sets))).all()


def test_data_frames_keep_their_columns():
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(s, columns=["a", "b"]) for s in TRAIN[0]]
    model = SubsetSelector(8, epochs=1).fit(frames, TRAIN[1])
    assert model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(InputError, match="feature names should match"):
        model.predict([frames[0][["b", "a"]]])


def test_clones():
    base = pytest.importorskip("sklearn.base")
    model = base.clone(SubsetSelector(8, background="none", n_samples=3))
    assert model.get_params()["n_samples"] == 3
    assert repr(model) == "SubsetSelector(hidden_features=8, background='none', n_samples=3)"


def changed(sets=None, subsets=None, **options):
    return lambda: SubsetSelector(**{"hidden_features": 4, "epochs": 1, **options}).fit(
        TRAIN[0] if sets is None else sets, TRAIN[1] if subsets is None else subsets
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (changed(sets=[]), "needs at least one set"),
        (changed(sets=TRAIN[0][:3], subsets=TRAIN[1][:3]), "needs at least 4 sets"),
        (changed(subsets=TRAIN[1][:-1]), "sets and subsets must have equal lengths, got 160 sets and 159 subsets"),
        (
            changed(subsets=[*TRAIN[1][:-1], TRAIN[1][-1][:-1]]),
            r"subset 159 has \d booleans, and set 159 has \d elements",
        ),
        (
            changed(subsets=[*TRAIN[1][:-1], [99]]),
            r"subset 159 must hold positions 0\.\.\d of elements, got 99\.\.99",
        ),
        (changed(subsets=[*TRAIN[1][:-1], [-1]]), "must hold positions"),
        (changed(subsets=[*TRAIN[1][:-1], [1, 1]]), "subset 159 holds a position twice"),
        (changed(subsets=[*TRAIN[1][:-1], [0.5]]), "must hold booleans or positions"),
        (changed(subsets=[s.astype(int) for s in TRAIN[1]]), "zeros and ones, which may be a mask or positions"),
        (changed(subsets=[[] for _ in TRAIN[0]]), "the subsets choose no element"),
        (changed(subsets=[s | True for s in TRAIN[1]]), "the subsets choose every element"),
        (changed(subsets=7), "subsets must be a list"),
        (changed(subsets=[[[0], [1, 2]]] * 160), "subset 0 must hold booleans or positions"),
        (changed(sets=TRAIN[0][0]), r"X must be a list of ground sets, got one of shape .* pass \[X\]"),
        (changed(sets=np.zeros((5, 3, 2, 2))), "flatten images"),
        (changed(sets=[np.zeros((3, 2, 2))] * 5), "flatten images"),
        (changed(validation_fraction=None), "validation_fraction must lie between"),
        (changed(weight_decay=-1.0), "weight_decay must not be negative"),
        (changed(random_state=2**70), "random_state must be below"),
        (changed(learning_rate=1e18, batch_size=200), "the loss is not finite"),
        (changed(encoder=nn.Linear(2, 5), inference="exact"), "the encoder must return shape"),
        (changed(encoder=nn.Linear(2, 5), inference="copula"), "the encoder must return shape"),
        (changed(sets=[*TRAIN[0][:-1], TRAIN[0][-1] * np.nan]), "set 159 holds NaN"),
        (changed(sets=[*TRAIN[0][:-1], np.zeros((0, 2))]), "set 159 is empty"),
        (changed(sets=[*TRAIN[0][:-1], np.zeros((4, 3))]), "set 159 has 3 features"),
        (changed(inference="exact", sets=[np.random.rand(17, 2)] * 4, subsets=[[0]] * 4), "at most 16 elements"),
        (changed(inference="gibbs"), "inference must be one of"),
        (changed(hidden_features=0), "hidden_features must be"),
        (changed(epochs=0), "epochs must be"),
        (changed(validation_fraction=1.0), "validation_fraction must lie between"),
        (changed(negatives=0.0), "negatives must be"),
        (changed(background="both"), "background must be one of"),
        (changed(encoder="mlp"), "encoder must be a module"),
        (changed(encoder=nn.Linear(2, 5)), "the encoder must return shape"),
        (changed(learning_rate=0.0), "learning_rate must be"),
    ],
)
def test_wrong_input_is_named(call, message, unchecked):
    with pytest.raises(InputError, match=message):
        call()


def test_wrong_calls_are_named(unchecked):
    with pytest.raises(InputError, match="not fitted yet"):
        SubsetSelector().predict(TEST[0])
    with pytest.raises(InputError, match="y is None"):
        SubsetSelector().fit(TRAIN[0], None)
    model = SubsetSelector(4, epochs=1).fit(*TRAIN)
    with pytest.raises(InputError, match="standard deviations from the training mean"):
        model.predict([np.array([[1e39, 0.0], [0.0, 0.0]])])
    with pytest.raises(InputError, match=r"pass \[X\]"):
        model.predict(TEST[0][0])
    assert model.predict(TEST[0][:2], k=[torch.tensor(1), np.int64(2)])[1].sum() == 2
    assert model.predict(TEST[0][:2], k=torch.tensor(1))[1].sum() == 1
    with pytest.raises(InputError, match="X has 3 features, but SubsetSelector is expecting 2"):
        model.predict([np.zeros((3, 3))])
    for k, message in (
        (9, "between 0 and the number of elements, got 9 for set 0"),
        (-1, "got -1 for set 0"),
        ([1], "one for each of 80 sets"),
        (1.5, "k must be a whole number"),
        ("2", "k must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(TEST[0], k=k)
