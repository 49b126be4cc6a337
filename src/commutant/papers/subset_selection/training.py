"""Training of every arm alike: Adam, gradients clipped, and the epoch that is best on validation sets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...data import SubsetExamples
from .models import Selector

_THRESHOLDS = torch.linspace(-4, 4, 81)


@dataclass(frozen=True)
class Schedule:
    """Settings of the training of one network.

    Attributes:
        epochs: Number of epochs.
        batch_size: Number of ground sets per step.
        learning_rate: Learning rate of Adam.
        seed: Seed of the weights, the batches and the samples.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


def overlap(scores: Tensor, chosen: Tensor) -> float:
    """Return the mean Jaccard coefficient of the best-scored elements, as many as are to be chosen.

    Args:
        scores: Score of each element, `(sets, size)`.
        chosen: Whether each element is in the subset.
    """
    count = chosen.sum(1, keepdim=True)
    found = scores.argsort(dim=1, descending=True, stable=True).argsort(1) < count
    return float(((found & chosen).sum(1) / (found | chosen).sum(1).clamp(min=1)).mean())


def overlap_without_size(scores: Tensor, chosen: Tensor, threshold: float) -> float:
    """Return the mean Jaccard coefficient of the elements whose standardized score exceeds a threshold.

    Args:
        scores: Score of each element, `(sets, size)`.
        chosen: Whether each element is in the subset.
        threshold: Threshold.
    """
    found = scores > threshold
    either = (found | chosen).sum(1)
    return float(torch.where(either > 0, (found & chosen).sum(1) / either.clamp(min=1), 1.0).mean())


def best_threshold(scores: Tensor, chosen: Tensor) -> float:
    """Return the threshold with the highest mean Jaccard coefficient.

    Args:
        scores: Score of each element of validation sets.
        chosen: Whether each element is in the subset.
    """
    center, spread = scores.mean(), scores.std()
    tried = [float(center + t * spread) for t in _THRESHOLDS]
    return max(tried, key=lambda t: overlap_without_size(scores, chosen, t))


@torch.no_grad()
def scores_of(net: nn.Module, sets: Tensor, at_once: int = 256) -> Tensor:
    """Return the score of each element, `(sets, size)`.

    Args:
        net: Network from ground sets to scores.
        sets: Ground sets, `(sets, size, ...)`.
        at_once: Number of sets scored together.
    """
    net.eval()
    found = torch.cat([net(part) for part in sets.split(at_once)])
    net.train()
    return found


def train(net: nn.Module, training: SubsetExamples, validation: SubsetExamples, schedule: Schedule) -> nn.Module:
    """Train a network, and return it as of the epoch with the best validation overlap.

    Args:
        net: Selector or tagger.
        training: Training sets.
        validation: Validation sets.
        schedule: Settings.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=schedule.learning_rate, weight_decay=1e-5)
    best, kept = -1.0, net.state_dict()
    for _ in range(schedule.epochs):
        for rows in torch.randperm(len(training), generator=generator).split(schedule.batch_size):
            batch = training[rows]
            optimizer.zero_grad()
            _loss(net, batch, generator).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
        found = overlap(scores_of(net, validation.x), validation.chosen)
        if found > best:
            best, kept = found, copy.deepcopy(net.state_dict())
    net.load_state_dict(kept)
    return net


def figures_of(
    name: str, net: nn.Module, validation: SubsetExamples, tests: Sequence[tuple[str, SubsetExamples]]
) -> dict[str, float]:
    """Return the overlap on test sets, with the true sizes and with a threshold chosen on validation sets.

    Args:
        name: Name of the arm.
        net: Trained network.
        validation: Validation sets.
        tests: Test sets, by the end of the name of their figure.
    """
    threshold = best_threshold(scores_of(net, validation.x), validation.chosen)
    out = {}
    for end, part in tests:
        scores = scores_of(net, part.x)
        out[f"{name}{end}"] = overlap(scores, part.chosen)
        out[f"{name}-unsized{end}"] = overlap_without_size(scores, part.chosen, threshold)
    return out


def _loss(net: nn.Module, batch: SubsetExamples, generator: torch.Generator) -> Tensor:
    if isinstance(net, Selector):
        return net.loss(batch, generator)
    found = nn.functional.binary_cross_entropy_with_logits(net(batch.x), batch.chosen.float(), reduction="sum")
    return found / len(batch)
