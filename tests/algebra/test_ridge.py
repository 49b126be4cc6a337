"""Ridge regression, against its normal equations and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from commutant import InputError
from commutant.algebra import NormalEquations, ridge


def data(rows, features, outputs=2, noise=0.1):
    generator = torch.Generator().manual_seed(rows + features)
    x, w = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((rows, features), (features, outputs)))
    return x + 3, x @ w + 5 + noise * torch.randn(rows, outputs, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("rows", "features"), [(40, 5), (5, 40), (10, 10)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_it_is_the_ridge_of_scikit_learn(rows, features, penalty):
    x, y = data(rows, features)
    fit = ridge(x, y, [penalty])
    top = float(torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)))[-1])
    other = Ridge(alpha=penalty * top, solver="svd").fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(fit.coefficients.T, other.coef_, atol=1e-9)
    np.testing.assert_allclose(fit.intercept, other.intercept_, atol=1e-8)


def test_primal_and_dual_solutions_satisfy_the_normal_equations():
    x, y = data(30, 20)
    for penalty in (1e-6, 1e-2):
        primal, dual = NormalEquations().add(x, y).solve([penalty]), ridge(x[:15], y[:15], [penalty])
        for fit, rows in ((primal, slice(None)), (dual, slice(15))):
            cx, cy = x[rows] - x[rows].mean(0), y[rows] - y[rows].mean(0)
            top = float(torch.linalg.eigvalsh(cx.T @ cx)[-1])
            gap = cx.T @ cy - cx.T @ (cx @ fit.coefficients) - penalty * top * fit.coefficients
            assert float(gap.abs().max() / (cx.T @ cy).abs().max()) < 1e-8


def test_parts_give_the_sums_of_the_whole():
    x, y = data(50, 6)
    sums = NormalEquations()
    for rows in (slice(0, 1), slice(1, 30), slice(30, 50)):
        sums.add(x[rows], y[rows])
    fit, whole = sums.solve(), ridge(x, y)
    torch.testing.assert_close(fit.coefficients, whole.coefficients, rtol=0, atol=1e-9)
    torch.testing.assert_close(fit.intercept, whole.intercept, rtol=0, atol=1e-8)
    assert fit.penalty == whole.penalty


@pytest.mark.parametrize(("rows", "features"), [(60, 10), (30, 60)])
def test_the_score_is_generalized_cross_validation(rows, features):
    x, y = data(rows, features)
    penalties = [1e-6, 1e-3, 1e-1]
    cx, cy = x - x.mean(0), y - y.mean(0)
    top = float(torch.linalg.eigvalsh(cx.T @ cx)[-1])
    for penalty, score in zip(penalties, ridge(x, y, penalties).scores, strict=True):
        hat = cx @ torch.linalg.solve(cx.T @ cx + penalty * top * torch.eye(features).double(), cx.T)
        missed = float((cy - hat @ cy).square().sum())
        assert score == pytest.approx(rows * missed / (rows - 1 - float(hat.trace())) ** 2, rel=1e-6)


def test_more_noise_chooses_a_larger_penalty():
    calm, noisy = (ridge(*data(80, 40, noise=noise)).penalty for noise in (1e-3, 30.0))
    assert calm < noisy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ridge(torch.ones(3, 2), torch.ones(2, 1)), "x and y must have shapes"),
        (lambda: ridge(torch.ones(0, 2), torch.ones(0, 1)), "x and y must have shapes"),
        (lambda: ridge(torch.ones(3, 2), torch.full((3, 1), float("nan"))), "must be finite"),
        (lambda: ridge(torch.ones(3, 2), torch.ones(3, 1), [0.0]), r"positive numbers, got \[0.0\]"),
        (lambda: ridge(torch.ones(3, 2), torch.ones(3, 1), []), "positive numbers"),
        (lambda: ridge(np.ones((3, 2)), np.ones((3, 1))), "x and y must be real tensors"),
        (lambda: ridge(torch.ones(3, 2) * 1j, torch.ones(3, 1)), "x and y must be real tensors"),
        (lambda: ridge(1e200 * data(9, 3)[0], data(9, 3)[1]), "products of features overflow"),
        (lambda: ridge(*data(9, 3), "small"), "penalties must be positive numbers"),
        (lambda: NormalEquations().solve(), "call add first"),
        (lambda: NormalEquations().add(*data(5, 2)).add(*data(5, 3)), "2 features and 2 outputs as before, got 3"),
    ],
)
def test_bad_input_is_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make()


def test_constant_features_give_the_mean():
    fit = ridge(torch.ones(4, 2), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert float(fit.intercept) == pytest.approx(2.5)
    assert bool((fit.coefficients == 0).all())


@pytest.mark.parametrize("rows", [3, 9])
def test_features_that_vary_by_rounding_alone_are_constant(rows):
    x = torch.full((rows, 5), 0.7, dtype=torch.float64)
    fit = ridge(x, torch.arange(float(rows))[:, None], [1e-20])
    assert bool((fit.coefficients == 0).all())
    assert float(fit.intercept) == pytest.approx((rows - 1) / 2)
