"""Measured numbers that depend on one variable."""

from __future__ import annotations

from ._context import Measurement


def series(measurement: Measurement, name: str) -> dict[float | int, float]:
    """Return the measured numbers called `name@x`, by x in ascending order.

    Args:
        measurement: Measured numbers of one seed.
        name: Part of the names before the `@`.

    Example:
        >>> series({"gru@32": 0.9, "gru@8": 1.0, "sum@8": 0.5}, "gru")
        {8: 1.0, 32: 0.9}
    """
    found = [(key.removeprefix(f"{name}@"), value) for key, value in measurement.items() if key.startswith(f"{name}@")]
    return dict(sorted((int(x) if x.isdigit() else float(x), value) for x, value in found))
