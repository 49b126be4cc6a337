"""Laws of the room, each with the case that its test draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..laws import Draw, Invariance, Law, obeys
from ..parameters import PermutationSpec, WeightPermutation
from ._feature_merging import FeatureMerger
from ._matching import weight_matching
from ._resizing import resize

Case = tuple[Law, Callable[..., Any], Any]


def _alignment(draw: Draw) -> Case:
    target, source = (
        draw.module(lambda: nn.Sequential(nn.Linear(3, draw.size + 1), nn.Tanh(), nn.Linear(draw.size + 1, draw.width)))
        for _ in range(2)
    )
    spec = PermutationSpec.from_module(target, draw.normal(2, 3), verify=False)
    state = {k: v.detach() for k, v in source.state_dict().items()}
    return Invariance(WeightPermutation(spec)), lambda **s: weight_matching(spec, target, s).apply(s), lambda _: state


def _merging(draw: Draw) -> Case:
    wide, width = draw.size + 2, draw.width + 1
    model = draw.module(
        lambda: nn.Sequential(
            nn.Linear(3, wide), nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, width), nn.ReLU(), nn.Linear(width, 2)
        )
    )
    x = draw.normal(4, 3)
    spec = PermutationSpec.from_module(model, x, verify=False)
    state = {k: v.detach() for k, v in model.state_dict().items()}

    def shrunk(**state: Tensor) -> Tensor:
        merger = FeatureMerger(resize(model, state), x, spec=spec, rule="ifm" if draw.size % 2 else "fold")
        return merger.shrink(beta=0.5).module.eval()(x)  # type: ignore[no-any-return]

    return Invariance(WeightPermutation(spec)), shrunk, lambda _: state


obeys("what is aligned does not depend on how the source was permuted", _alignment)(weight_matching)
obeys("what is merged does not depend on the order of the channels", _merging)(FeatureMerger)
