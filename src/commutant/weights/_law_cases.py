"""Laws of the room, each with the case that its test draws."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..laws import Action, Draw, Invariance, Law, breaks, obeys
from ..parameters import PermutationSpec, WeightPermutation
from ._feature_merging import FeatureMerger
from ._interaction_basis import InteractionBasis, Kind
from ._matching import weight_matching
from ._resizing import resize
from .sorted_networks import Menu, SortedModule, segment_spec

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


class _ChangeBetween(Action):
    """Invertible linear maps of the activations between two linear layers: one is multiplied, the next one divided."""

    name = "invertible maps between two layers"

    def __init__(self, before: str, after: str) -> None:
        self.before, self.after = before, after

    def sample(self, x: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        size = x[f"{self.after}.weight"].shape[1]
        first, second = (
            torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q for _ in range(2)
        )
        scale = torch.rand(size, generator=generator, dtype=torch.float64) + 0.5
        return first * scale @ second  # of condition at most 3

    def identity(self, x: Mapping[str, Tensor]) -> Tensor:
        return torch.eye(x[f"{self.after}.weight"].shape[1], dtype=torch.float64)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        return torch.linalg.inv(g)

    def act(self, g: Tensor, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = dict(x)
        for key in (f"{self.before}.weight", f"{self.before}.bias"):
            out[key] = (g @ x[key].double()).to(x[key])
        key = f"{self.after}.weight"
        out[key] = torch.linalg.solve(g.mT, x[key].double().mT).mT.to(x[key])
        return out


def _strengths(kind: Kind) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        wide = draw.size + 3
        model = draw.module(lambda: nn.Sequential(nn.Linear(3, wide), nn.Tanh(), nn.Linear(wide, 3), nn.Linear(3, 2)))
        x = draw.normal(60, 3)
        state = {k: v.detach() for k, v in model.state_dict().items()}

        def strengths(**state: Tensor) -> Tensor:
            network = copy.deepcopy(model)
            network.load_state_dict(state)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # few rows are enough here
                found = InteractionBasis(network, ["0", "2", "3"], kind, rtol=1e-9).fit([x])
            return torch.cat([found.bases[name].strengths[:2] for name in ("0", "2", "3")])

        return Invariance(_ChangeBetween("2", "3")), strengths, lambda _: state

    return case


def _sub_networks(inside: bool) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        wide = draw.size + 6
        model = draw.module(lambda: nn.Sequential(nn.Linear(3, wide), nn.Tanh(), nn.Linear(wide, 2)))
        x = draw.normal(4, 3)
        menu = Menu.product(width=[2, 4, wide])
        nested = SortedModule(model, x, {"width": "auto"}, menu)
        spec = segment_spec(nested) if inside else nested.spec
        state = {k: v.detach() for k, v in model.state_dict().items()}

        def outputs(**state: Tensor) -> Tensor:
            network = copy.deepcopy(model)
            network.load_state_dict(state)
            twin = SortedModule(network, x, {"width": "auto"}, menu, spec=nested.spec)
            return torch.stack([twin.extract(budget)(x) for budget in menu])

        return Invariance(WeightPermutation(spec)), outputs, lambda _: state

    return case


obeys("permutations inside segments keep every sub-network", _sub_networks(inside=True))(SortedModule)
breaks("permutations across segments keep every sub-network", _sub_networks(inside=False))(SortedModule)
obeys("strengths do not depend on an invertible map between two layers", _strengths("local"))(InteractionBasis)
breaks("principal components do not depend on an invertible map between two layers", _strengths("pca"))(
    InteractionBasis
)
obeys("what is aligned does not depend on how the source was permuted", _alignment)(weight_matching)
obeys("what is merged does not depend on the order of the channels", _merging)(FeatureMerger)
