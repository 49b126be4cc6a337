"""Training, calibration and predictions of a selector of subsets."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import ConditionalBernoulli, poisson_binomial
from ._amortized import AmortizedInference
from ._enumeration import subsets_of, tables
from ._mean_field import MeanField
from ._set_utility import GroundSets, SetUtility
from ._subsets import largest_of_each_set

_COPULA_RANK = 5
_CLIP = 10.0  # norm at which gradients are clipped, as in the published code


class FittedSelector:
    """Networks of a selector, with their training, calibration and predictions.

    Args:
        arguments: Arguments of the estimator, by name.
        x: Elements of all ground sets, `(elements, features)`.
        sizes: Number of elements of each set.
        chosen: Whether each element is in the optimal subset.
    """

    def __init__(self, arguments: Any, x: Tensor, sizes: Tensor, chosen: Tensor) -> None:
        a = arguments
        spread = x.std(0, correction=0)
        self.mean, self.spread = x.mean(0), torch.where(spread > 1e-12 * x.abs().amax(0), spread, 1.0)
        self.arguments, self.exact = copy.copy(a), a.inference == "exact"
        self.generator = torch.Generator().manual_seed(int(a.random_state))
        self.utility = SetUtility(
            self._encoder(x.shape[1]), a.hidden_features, 2 * a.hidden_features, background=a.background, pool=a.pool
        )
        self.amortized = None
        if a.inference in ("independent", "copula"):
            rank = _COPULA_RANK if a.inference == "copula" else 0
            encoder = self._encoder(x.shape[1])
            self.amortized = AmortizedInference(encoder, a.hidden_features, 2 * a.hidden_features, rank=rank)
        self.infer = MeanField(self.utility, a.n_iter, a.n_samples, exact_below=0)
        self.share = float(_share(chosen, sizes).mean().clamp(0.01, 0.99))
        self.slope, self.shift = 1.0, 0.0
        self.history: list[dict[str, float]] = []
        order = torch.randperm(len(sizes), generator=self.generator)
        held = max(1, round(a.validation_fraction * len(sizes)))
        parts = list(self._standardized(x).split(sizes.tolist()))
        masks = list(chosen.split(sizes.tolist()))
        self.training = [(parts[i], masks[i]) for i in order[held:].tolist()]
        self.held_out = [(parts[i], masks[i]) for i in order[:held].tolist()]

    def _encoder(self, features: int) -> nn.Module:
        a = self.arguments
        if a.encoder is not None:
            return copy.deepcopy(a.encoder)
        return nn.Sequential(
            nn.Linear(features, a.hidden_features), nn.ReLU(), nn.Linear(a.hidden_features, a.hidden_features)
        )

    def _standardized(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.spread).float()

    def train(self) -> None:
        """Train, keep the epoch that is best on held-out sets, and calibrate its scores."""
        a = self.arguments
        optimizers = [
            torch.optim.Adam(module.parameters(), lr=a.learning_rate, weight_decay=a.weight_decay)
            for module in (self.utility, self.amortized)
            if module is not None
        ]
        best, kept, since = math.inf, None, 0
        for _ in range(a.epochs):
            self._mode(True)
            order = torch.randperm(len(self.training), generator=self.generator).tolist()
            losses = [
                self._step([self.training[i] for i in order[start : start + a.batch_size]], optimizers)
                for start in range(0, len(order), a.batch_size)
            ]
            found = self._calibrate()
            self.history.append({"loss": sum(losses) / len(losses), "held_out": found})
            if not math.isfinite(losses[-1]):
                raise InputError("the loss is not finite; lower learning_rate")
            since += 1
            if found < best or kept is None:
                best, since, kept = found, 0, copy.deepcopy([m.state_dict() for m in self._modules()])
            if since >= a.patience:
                break
        assert kept is not None
        for module, state in zip(self._modules(), kept, strict=True):
            module.load_state_dict(state)
        self._calibrate(samples=16)

    def _modules(self) -> list[nn.Module]:
        return [m for m in (self.utility, self.amortized) if m is not None]

    def _mode(self, training: bool) -> None:
        for module in (self.infer, *self._modules()):
            module.train(training)
        self.infer.n_samples = self.arguments.n_samples

    def _step(self, sets: list[tuple[Tensor, Tensor]], optimizers: Sequence[torch.optim.Optimizer]) -> float:
        x, chosen, sizes = _joined(sets)
        index = torch.repeat_interleave(sizes)
        start: float | Tensor = self.share
        if self.amortized is not None:
            bound = self.amortized.negative_elbo(
                self.utility, x, index, num_samples=self.infer.n_samples, generator=self.generator
            )
            _descend(bound, self.amortized, optimizers[1])
            start = self.amortized(x).detach().sigmoid()
        if self.exact:
            loss = -self._log_likelihood(x, chosen, sizes).mean()
        else:
            loss = self.infer.loss(
                x, chosen, index, negatives=self.arguments.negatives, start=start, generator=self.generator
            )
        _descend(loss, self.utility, optimizers[0])
        return float(loss.detach())

    def _log_likelihood(self, x: Tensor, chosen: Tensor, sizes: Tensor) -> Tensor:
        """Return the log-likelihood of the subset of each set, in some order."""
        sets = self._prepared(x, sizes)
        found = []
        for table, mask in zip(tables(self.utility, sets), sets.blocks.split(chosen[:, None], 1), strict=True):
            bits = 2 ** torch.arange(mask.shape[1])
            row = (mask[..., 0].long() * bits).sum(1, keepdim=True)
            found.append(table.gather(1, row)[:, 0] - table.logsumexp(1))
        return torch.cat(found)

    @torch.no_grad()
    def _calibrate(self, samples: int = 2) -> float:
        """Fit slope and shift of the scores, and return the negative log-likelihood of held-out subsets.

        Args:
            samples: Number of sampled subsets, in units of that in training.
        """
        self._mode(False)
        self.infer.n_samples *= samples
        x, chosen, sizes = _joined(self.held_out)
        if self.exact:
            return -float(self._log_likelihood(x, chosen, sizes).mean())
        scores = self._logits(x, sizes).double()
        self.slope, self.shift = _logistic_fit(scores, chosen.double())
        found = scores * self.slope + self.shift
        loss = nn.functional.binary_cross_entropy_with_logits(found, chosen.double(), reduction="sum")
        return float(loss) / len(sizes)

    @torch.no_grad()
    def _logits(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Return scores of elements; they do not depend on the batch, nor on the order of elements."""
        owner = torch.repeat_interleave(sizes)
        order = torch.from_numpy(np.lexsort((*x.T.numpy(), owner.numpy())))
        parts = []
        for rows, part in _batches(order, sizes):
            index, values = torch.repeat_interleave(part), x[rows]
            if self.exact:
                parts.append(self._exact_marginals(values, part))
                continue
            start = self.share if self.amortized is None else self.amortized(values).sigmoid()
            parts.append(self.infer(values, index, num_sets=len(part), start=start).logits)
        return torch.empty(len(x)).index_copy(0, order, torch.cat(parts))

    def _exact_marginals(self, x: Tensor, sizes: Tensor) -> Tensor:
        sets = self._prepared(x, sizes)
        found = []
        for table in tables(self.utility, sets):
            subsets = subsets_of(table.shape[1].bit_length() - 1)
            chosen = torch.stack([table[:, part].logsumexp(1) - table[:, ~part].logsumexp(1) for part in subsets.T], 1)
            found.append(chosen[..., None])
        return sets.blocks.join(found, 1)[:, 0]

    def scores(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Return calibrated log-odds of elements, `(elements,)`.

        Args:
            x: Elements.
            sizes: Size of each set.
        """
        return self._logits(self._standardized(x), sizes) * self.slope + self.shift

    @torch.no_grad()
    def probabilities(self, x: Tensor, sizes: Tensor, count: Tensor | None) -> Tensor:
        """Return the probability that each element is chosen.

        Args:
            x: Elements.
            sizes: Size of each set.
            count: Size of each subset, or None.
        """
        if count is None:
            return self.scores(x, sizes).sigmoid()
        if not self.exact:
            parts = zip(self.scores(x, sizes).split(sizes.tolist()), count.tolist(), strict=True)
            return torch.cat([ConditionalBernoulli(part, k).marginals() for part, k in parts])
        sets, found = self._prepared(self._standardized(x), sizes), []
        for table, size in zip(tables(self.utility, sets), sets.blocks.split(count[:, None], 0), strict=True):
            subsets = subsets_of(table.shape[1].bit_length() - 1)
            weight = torch.where(subsets.sum(1) == size, table, -torch.inf).softmax(1)
            found.append((weight @ subsets.to(weight))[..., None])
        return sets.blocks.join(found, 1)[:, 0]

    def _prepared(self, x: Tensor, sizes: Tensor) -> GroundSets:
        return self.utility.grouped(self.utility.encoder(x), sizes)

    @torch.no_grad()
    def choose(self, x: Tensor, sizes: Tensor, count: Tensor | None) -> Tensor:
        """Return whether each element is chosen.

        Args:
            x: Elements.
            sizes: Size of each set.
            count: Size of each subset, or None.
        """
        if self.exact:
            return self._most_probable(self._standardized(x), sizes, count)
        scores = self.scores(x, sizes)
        if count is None:
            padded = nn.utils.rnn.pad_sequence(scores.split(sizes.tolist()), batch_first=True, padding_value=-torch.inf)
            count = poisson_binomial(padded.double()).argmax(1)
        return largest_of_each_set(scores, sizes, count)

    def _most_probable(self, x: Tensor, sizes: Tensor, count: Tensor | None) -> Tensor:
        sets = self._prepared(x, sizes)
        wanted = [None] * len(sets.blocks.runs) if count is None else sets.blocks.split(count[:, None], 0)
        found = []
        for table, size in zip(tables(self.utility, sets), wanted, strict=True):
            subsets = subsets_of(table.shape[1].bit_length() - 1)
            if size is not None:
                table = torch.where(subsets.sum(1) == size, table, -torch.inf)
            found.append(subsets[table.argmax(1)][..., None])
        return sets.blocks.join(found, 1)[:, 0]


def _logistic_fit(scores: Tensor, target: Tensor) -> tuple[float, float]:
    """Return slope and shift of a logistic regression on one feature, with half a pseudo-observation as the penalty."""
    scale, center = float(scores.std(correction=0).clamp(min=1e-6)), float(scores.mean())
    design = torch.stack([(scores - center) / scale, torch.ones_like(scores)], 1)
    weight = torch.zeros(2, dtype=torch.float64)
    for _ in range(50):  # Newton steps
        psi = (design @ weight).sigmoid()
        slope = design.T @ (psi - target) + 0.5 * weight
        curvature = design.T @ (design * (psi * (1 - psi))[:, None]) + 0.5 * torch.eye(2, dtype=torch.float64)
        weight = weight - torch.linalg.solve(curvature, slope)
    if weight[0] <= 0:  # worse than chance: the order of scores is kept
        return 1.0, 0.0
    return float(weight[0]) / scale, float(weight[1] - weight[0] * center / scale)


def _descend(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take a step on the parameters of one network; gradients of others are dropped."""
    parameters = list(module.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(parameters, _CLIP)
    optimizer.step()


def _joined(sets: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    x, chosen = (torch.cat([part[i] for part in sets]) for i in range(2))
    return x, chosen, torch.tensor([len(part[0]) for part in sets])


def _batches(order: Tensor, sizes: Tensor, elements: int = 1 << 11) -> list[tuple[Tensor, Tensor]]:
    """Return the rows and the sizes of groups of sets, of bounded memory."""
    groups = (sizes.cumsum(0) - sizes) // elements
    out, start = [], 0
    for group in groups.unique(sorted=True):
        part = sizes[groups == group]
        out.append((order[start : start + int(part.sum())], part))
        start += int(part.sum())
    return out


def _share(chosen: Tensor, sizes: Tensor) -> Tensor:
    owner = torch.repeat_interleave(sizes)
    return torch.zeros(len(sizes)).index_add(0, owner, chosen.float()) / sizes
