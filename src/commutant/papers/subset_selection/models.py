"""Networks of the experiments: utilities with each background, and taggers, which score every element at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...data import SubsetExamples
from ...sets import MeanField, SetUtility

Arm = Literal["none", "complement", "concat", "added", "deepsets", "set-transformer"]
UTILITIES = ("none", "complement", "concat", "added")


class Tagger(nn.Module):
    """Network that scores each element given all elements: DeepSets, or two blocks of self-attention.

    Args:
        encoder: Module from elements to features.
        features: Number of features.
        hidden_features: Width of the scoring network.
        attention: Whether elements attend to each other, instead of reading the sum of all.
    """

    def __init__(self, encoder: nn.Module, features: int, hidden_features: int, *, attention: bool) -> None:
        super().__init__()
        self.encoder, self.features = encoder, features
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(features, 4, 2 * features, dropout=0.0, batch_first=True)
            for _ in range(2 if attention else 0)
        )
        self.score = nn.Sequential(
            nn.Linear(features if attention else 2 * features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a score of each element, `(sets, size)`.

        Args:
            x: Elements, `(sets, size, ...)`.
        """
        h = self.encoder(x.flatten(0, 1)).reshape(*x.shape[:2], self.features)
        if not self.blocks:
            h = torch.cat([h, h.sum(1, keepdim=True).expand_as(h)], 2)
        for block in self.blocks:
            h = block(h)
        return self.score(h).squeeze(2)  # type: ignore[no-any-return]


class Selector(nn.Module):
    """Utility with mean-field inference from a constant start, as EquiVSet and INSET train it.

    Args:
        encoder: Module from elements to features.
        features: Number of features.
        hidden_features: Width of the utility.
        arm: Background of the utility: `"none"` is EquiVSet, `"complement"` the published code of INSET, `"added"` adds
            a function of the ground set to `"none"`.
        start: Probability at which mean-field inference starts.
        n_samples: Number of sampled subsets.
        pool: Pool of the utility.
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        hidden_features: int,
        arm: Arm,
        start: float,
        n_samples: int,
        pool: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        background: Any = "none" if arm == "added" else arm
        utility = SetUtility(encoder, features, hidden_features, background=background, pool=pool)
        if arm == "added":
            utility.branches.append(function_of("whole", features, hidden_features))
        self.infer, self.start = MeanField(utility, 1, n_samples, exact_below=0), start

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of each element, `(sets, size)`.

        Args:
            x: Elements, `(sets, size, ...)`.
        """
        return self.infer(x.flatten(0, 1), _index(x), start=self.start).logits.reshape(x.shape[:2])

    def loss(self, batch: SubsetExamples, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy on the subset and as many other elements.

        Args:
            batch: Ground sets and subsets.
            generator: Source of the other elements and of sampled subsets.
        """
        flat, chosen = batch.x.flatten(0, 1), batch.chosen.flatten()
        return self.infer.loss(flat, chosen, _index(batch.x), start=self.start, generator=generator)


def function_of(side: Literal["whole", "outside"], features: int, hidden_features: int) -> nn.Module:
    """Return a branch of a utility that reads the ground set alone, or the complement of the subset.

    Args:
        side: What it reads.
        features: Number of pooled features.
        hidden_features: Width of its hidden layers.
    """
    if side == "outside":
        return SetUtility(nn.Identity(), features, hidden_features).branches[1]  # type: ignore[no-any-return]
    branch = SetUtility(nn.Identity(), features, hidden_features, background="concat").branches[0]
    del branch.first["inside"]
    return branch  # type: ignore[no-any-return]


def _index(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device).repeat_interleave(x.shape[1])


def network_of(
    arm: Arm,
    encoder: Callable[[], nn.Module],
    features: int,
    hidden: int,
    start: float,
    n_samples: int,
    pool: Literal["sum", "mean"] = "sum",
) -> nn.Module:
    """Return the network of an arm.

    Args:
        arm: Arm.
        encoder: Function that builds the encoder.
        features: Number of features that the encoder returns.
        hidden: Width of the other layers.
        start: Probability at which mean-field inference starts.
        n_samples: Number of sampled subsets.
        pool: Pool of a utility.
    """
    if arm in UTILITIES:
        return Selector(encoder(), features, hidden, arm, start, n_samples, pool)
    return Tagger(encoder(), features, hidden, attention=arm == "set-transformer")
