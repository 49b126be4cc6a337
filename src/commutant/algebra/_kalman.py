"""Scalar Kalman filter as a monoid, which ELK scans instead of the affine maps of Newton's method."""

from __future__ import annotations

import torch
from torch import Tensor

from ._monoid import Monoid
from .elements import Element


class ScalarKalman(Monoid):
    """Monoid of filtering elements $(A, b, C, \\eta, J)$ of scalar linear Gaussian models.

    Part b of an inclusive scan holds the filtered means of $h_t = A_t h_{t-1} + b_t + N(0, 1)$, observed with noise
    (Sarkka and Garcia-Fernandez 2021).

    Shapes:
        element: five tensors `(..., channels)`, with C and J not negative.

    Example:
        >>> one = torch.ones(2, 1)
        >>> ScalarKalman().op((one, one, one, one, one), (one, one, one, one, one))[0].flatten()
        tensor([0.5000, 0.5000])
    """

    commutative = "no"
    numbers = "real"
    parts = 5

    def op(self, a: Element, b: Element) -> Element:
        A1, b1, C1, eta1, J1 = a
        A2, b2, C2, eta2, J2 = b
        shrink = 1 / (1 + C1 * J2)
        return (
            A2 * A1 * shrink,
            A2 * (b1 + C1 * eta2) * shrink + b2,
            A2 * A2 * C1 * shrink + C2,
            A1 * (eta2 - J2 * b1) * shrink + eta1,
            A1 * A1 * J2 * shrink + J1,
        )

    def identity(self, like: Element) -> Element:
        one, zero = torch.ones_like(like[0]), torch.zeros_like(like[0])
        return one, zero, zero, zero, zero

    @staticmethod
    def filtered_means(A: Tensor, b: Tensor, h_0: Tensor, observed: Tensor, trust: float) -> Tensor:
        """Return the means of $h_t = A_t h_{t-1} + b_t + N(0, 1)$ given noisy observations.

        Args:
            A: Factors, `(time, ..., channels)`.
            b: Shifts, `(time, ..., channels)`.
            h_0: State before the first step, `(..., channels)`.
            observed: Observed states, `(time, ..., channels)`.
            trust: Precision of the observations, the inverse of their variance.
        """
        variance = 1 / trust
        gain, total = 1 / (1 + variance), 1 + variance
        predicted = torch.cat([(A[0] * h_0 + b[0])[None], b[1:]])
        A = torch.cat([torch.zeros_like(A[:1]), A[1:]])
        element = (
            (1 - gain) * A,
            predicted + gain * (observed - predicted),
            torch.full_like(A, 1 - gain),
            A * (observed - b) / total,
            A * A / total,
        )
        return ScalarKalman().scan(element)[1]
