"""Predictions of wide networks: covariances, and kernels that do not match."""

import math

import numpy as np
import pytest
import torch

from commutant._errors import InputError
from commutant.theory import Dense, gp_predict, ntk_predict, plain_network, wide_kernel


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_variances(k, cross, prior, weights=None):
    """Return variances at twice the precision of the kernels, by rational arithmetic over NumPy's longdouble."""
    k, cross, prior = (t.numpy().astype(np.longdouble) for t in (k, cross, prior))
    if weights is None:
        a = np.concatenate([k, cross.T], 1)
        n = len(k)
        for i in range(n):
            a[i] /= a[i, i]
            for j in range(n):
                if j != i:
                    a[j] -= a[j, i] * a[i]
        weights = a[:, n:].T
    return torch.from_numpy((prior - weights @ cross.T).diagonal().astype(float))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [5, 20, 40])
@pytest.mark.parametrize("name", ["relu", "erf"])
def test_variances_are_not_negative(name, count, dtype, deep):
    net = plain_network(name, 2, Dense(0.1, 1.8))
    for seed in range(5 if deep else 2):
        x = points(count, 3, seed=seed)
        test = torch.cat([x, x + 1e-7, points(5, 3, seed=seed + 100)])
        k, cross, prior = (wide_kernel(net, *pair, get="kernel").to(dtype) for pair in ((x,), (test, x), (test,)))
        theta, theta_cross = (wide_kernel(net, *pair).to(dtype) for pair in ((x,), (test, x)))
        y = points(count, 1, seed=seed)
        for found in (
            gp_predict(k, y, cross, prior).covariance,
            gp_predict(k, y, cross, prior, noise=1e-6).covariance,
            ntk_predict(theta, y, theta_cross, (k, cross, prior)).covariance,
            ntk_predict(theta, y, theta_cross, (k, cross, prior), time=3.0).covariance,
        ):
            deviation = found.diagonal().sqrt()
            assert bool(torch.isfinite(deviation).all())
            assert torch.equal(found, found.T)
            assert bool((found.abs() <= deviation[:, None] * deviation * (1 + 1e-12)).all())
            assert float(torch.linalg.eigvalsh(found).min()) > -(1e-9 if dtype == torch.float64 else 1e-3)


def test_variances_are_those_of_higher_precision():
    net, x, test = plain_network("relu", 3, Dense(0.1, 2.0)), points(12, 4), points(6, 4, seed=1)
    k, cross, prior = (wide_kernel(net, *pair, get="kernel") for pair in ((x,), (test, x), (test,)))
    found = gp_predict(k, points(12, 1), cross, prior).covariance.diagonal()
    torch.testing.assert_close(found, exact_variances(k, cross, prior), rtol=1e-10, atol=1e-13)
    at_training = gp_predict(k, points(12, 1), k, k).covariance.diagonal()
    assert float(at_training.max()) < 1e-12


EYE, Y, C = torch.eye(3, dtype=torch.float64), points(3, 1), points(2, 3) / 9
SKEW = EYE + torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
REFUSED = {
    "kernels of different functions": (lambda: gp_predict(EYE, Y, 9 * C, torch.eye(2).double()), "one kernel function"),
    "kernels of different functions, trained": (
        lambda: ntk_predict(EYE, Y, C, (EYE, 50 * C, torch.eye(2).double())), "one kernel function"
    ),
    "a training kernel that is not symmetric": (lambda: gp_predict(SKEW, Y, C), "symmetric"),
    "a tangent kernel that is not symmetric": (lambda: ntk_predict(SKEW, Y, C, time=1.0), "symmetric"),
    "a prior that is not symmetric": (lambda: gp_predict(EYE, Y, EYE, SKEW), "symmetric"),
    "kernels that are not symmetric": (lambda: ntk_predict(EYE, Y, EYE, (SKEW, EYE, EYE)), "symmetric"),
    "a negative kernel, for a time": (lambda: ntk_predict(-EYE, Y, C, time=1.0), "negative eigenvalue"),
    "a number for a kernel": (lambda: gp_predict(torch.tensor(1.0), Y, C), "expected a kernel"),
    "no training input": (lambda: gp_predict(EYE[:0, :0], Y[:0], C[:, :0]), "expected a kernel"),
    "targets without outputs' axis": (lambda: gp_predict(EYE, Y[:, 0], C), "expected a kernel"),
    "a vector of cross kernels": (lambda: gp_predict(EYE, Y, C[0]), "expected a kernel"),
    "complex targets": (lambda: gp_predict(EYE, Y + 1j, C), "real numbers"),
    "an array": (lambda: gp_predict(EYE.numpy(), Y, C), "ndarray"),
    "a list of targets": (lambda: ntk_predict(EYE, [1.0, 2.0, 3.0], C), "list"),
    "a prior as an array": (lambda: gp_predict(EYE, Y, C, np.eye(2)), "ndarray"),
    "noise that is NaN": (lambda: gp_predict(EYE, Y, C, noise=math.nan), "variance"),
    "noise as text": (lambda: gp_predict(EYE, Y, C, noise="1"), "variance"),
    "half a step": (lambda: ntk_predict(EYE, Y, C, steps=2.5), "whole number"),
    "a rate that is NaN": (lambda: ntk_predict(0 * EYE, Y, C, steps=2, rate=math.nan), "rate"),
    "a negative rate": (lambda: ntk_predict(0 * EYE, Y, C, steps=2, rate=-1.0), "rate"),
    "time as text": (lambda: ntk_predict(EYE, Y, C, time="1"), "time must be a number"),
    "two kernels": (lambda: ntk_predict(EYE, Y, C, (EYE, C)), "three kernels"),
    "one start": (lambda: ntk_predict(EYE, Y, C, start=Y), "start must be a pair"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_belong_together_is_refused(case, unchecked):
    make, says = REFUSED[case]
    with pytest.raises(InputError, match=says) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_no_test_input_and_whole_numbers(unchecked):
    none = gp_predict(EYE, Y, C[:0], EYE[:0, :0])
    assert none.mean.shape == (0, 1)
    assert none.covariance.shape == (0, 0)
    assert ntk_predict(EYE, Y, C[:0], (EYE, C[:0], EYE[:0, :0])).covariance.shape == (0, 0)
    whole = gp_predict(torch.tensor([[2, 1], [1, 2]]), torch.tensor([[3], [1]]), torch.tensor([[2, 1], [1, 2]]))
    assert whole.mean.flatten().tolist() == pytest.approx([3, 1])
