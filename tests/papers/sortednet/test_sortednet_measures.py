"""Experiments of `sortednet`, far smaller than at any scale."""

import pytest
import torch

from commutant.papers.sortednet.models import ResNet
from commutant.weights import Menu, SortedModule

TINY = {
    "digits": {"data": "digits", "blocks": 2, "widths": [4, 8], "steps": 12, "rivals": True, "alone": [[1, 4]]},
    "large-menu": {"data": "digits", "blocks": 2, "widths": [4, 8, 12], "steps": 8, "rivals": False, "alone": []},
    "batch-norm": {"data": "digits", "widths": [4, 8, 128], "steps": 10},
    "language": {"text": "python", "width": 32, "depths": [2, 4], "context": 24, "batch": 4, "held": 4, "steps": 4,
                 "prompts": 2, "tokens": 6},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    if name == "language":
        pytest.importorskip("transformers")
    found = measured("sortednet", name, TINY[name])
    if name == "language":
        assert found["sorted-equal"] == found["cut-equal"] == 1


def test_the_residual_network_is_cut_in_width_and_depth():
    torch.manual_seed(0)
    model, x = ResNet(4, 2).eval(), torch.randn(2, 3, 32, 32)
    menu = Menu.product(depth=[1, 2], width=[0.5, 1.0])
    nested = SortedModule(model, x, {"depth": "stages.*.*", "width": "auto"}, menu)
    small = nested.extract(menu[0])
    assert [len(stage) for stage in small.stages] == [1, 1, 1]
    assert small.head.in_features == 8
    nested.calibrate([x])
    with nested.budget(**menu[0]):
        assert torch.equal(nested(x), nested.extract(menu[0])(x))
