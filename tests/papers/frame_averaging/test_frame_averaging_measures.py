"""Experiments of `frame-averaging`, far smaller than at any scale."""

import pytest

TINY = {
    "normals": {"train": 20, "test": 10, "points": 40, "epochs": 1},
    "particles": {"train": 100, "test": 20, "validation": 20, "warm_up": 10, "horizon": 10, "width": 6, "layers": 1,
                  "epochs": 1, "slower": 1, "learning_rate": 1e-3},
    "exactness": {"pairs": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("frame-averaging", name, TINY[name])
