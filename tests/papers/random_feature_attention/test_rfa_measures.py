"""Experiments of `random-feature-attention`, far smaller than at any scale."""

from __future__ import annotations

import pytest

TINY = {
    "targets": {"features": 2, "keys": 2, "heads": 3, "sizes": [300, 1000, 2000], "tests": 10, "trained_size": 1000,
                "width": 4, "steps": 1},
    "heads": {"features": 2, "keys": 2, "sets": 3, "heads": [50, 3200], "draws": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("random-feature-attention", name, TINY[name])
