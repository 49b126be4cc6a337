"""Networks of the claims on invariant coordinates: a PointNet classifier and a solver that plans tours."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ...geometry import FrameAverage, MDSCoordinates, TransformInvariant


class Classifier(nn.Module):
    """PointNet: features of every point, their maximum over points, and an MLP.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.points = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 128))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(clouds, classes)` of clouds `(clouds, n, 3)`."""
        return cast(Tensor, self.head(self.points(x).amax(1)))


def classifier(arm: str, classes: int) -> nn.Module:
    """Build the network of an arm of the experiment on shapes."""
    net = Classifier(classes)
    if arm in ("skew", "maxabs"):
        return TransformInvariant(net, signs=arm)  # type: ignore[arg-type]
    if arm == "frames":
        return FrameAverage(net, scale="rms")
    if arm in ("no-rule", "random"):
        return nn.Sequential(MDSCoordinates(signs="random" if arm == "random" else None, on_degenerate="ignore"), net)
    return net


class Solver(nn.Module):
    """Attention model that plans tours (Kool et al., 2019) from several cities at once (POMO, Kwon et al., 2020).

    Args:
        coordinates: Module that the cities pass through first.
        width: Width of the embedding.
        layers: Number of layers of the encoder.
    """

    def __init__(self, coordinates: nn.Module, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.coordinates, self.width = coordinates, width
        self.embed = nn.Linear(2, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.query, self.glimpse = nn.Linear(2 * width, width), nn.Linear(width, 2 * width)
        self.pointer, self.mix = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, starts: int, greedy: bool) -> tuple[Tensor, Tensor]:
        """Return tours `(batch, starts, n)` from the first cities, and the logarithms of their probabilities."""
        batch, n, _ = x.shape
        h = self.encoder(self.embed(self.coordinates(x)))
        keys, values = self.glimpse(h).chunk(2, -1)
        pointers = self.pointer(h)
        now = torch.arange(starts, device=x.device).expand(batch, starts)
        first = self._at(h, now)
        seen = torch.zeros(batch, starts, n, dtype=torch.bool, device=x.device).scatter(2, now[..., None], True)
        tour, logs = [now], x.new_zeros(batch, starts)
        for _ in range(n - 1):
            query = self.query(torch.cat([first, self._at(h, now)], -1))
            looked = _heads(query, keys, values, seen)
            scores = 10 * torch.tanh(self.mix(looked) @ pointers.mT / self.width**0.5)
            log_p = scores.masked_fill(seen, -torch.inf).log_softmax(-1)
            now = log_p.argmax(-1) if greedy else torch.multinomial(log_p.flatten(0, 1).exp(), 1).view(batch, starts)
            logs = logs + log_p.gather(2, now[..., None])[..., 0]
            seen = seen.scatter(2, now[..., None], True)
            tour.append(now)
        return torch.stack(tour, -1), logs

    @staticmethod
    def _at(h: Tensor, where: Tensor) -> Tensor:
        return h.gather(1, where[..., None].expand(-1, -1, h.shape[-1]))


def _heads(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor, number: int = 4) -> Tensor:
    """Return the attention `(batch, starts, width)` to the cities that were not visited."""
    split = lambda t: t.unflatten(-1, (number, -1)).transpose(1, 2)  # noqa: E731
    found = nn.functional.scaled_dot_product_attention(split(query), split(keys), split(values), ~seen[:, None])
    return found.transpose(1, 2).flatten(-2)


def tour_length(x: Tensor, tours: Tensor) -> Tensor:
    """Return the lengths `(batch, starts)` of closed tours.

    Args:
        x: Cities, `(batch, n, 2)`.
        tours: Order of the cities, `(batch, starts, n)`.
    """
    cities = x[:, None].expand(-1, tours.shape[1], -1, -1).gather(2, tours[..., None].expand(*tours.shape, 2))
    return (cities - cities.roll(-1, 2)).norm(dim=-1).sum(-1)


def shortest_tours(x: Tensor) -> Tensor:
    """Return the lengths `(batch,)` of the shortest closed tours, by dynamic programming (Held and Karp, 1962)."""
    d = torch.cdist(x, x).double()
    n = x.shape[1] - 1  # tours begin at the last city
    best = torch.full((len(x), 1 << n, n), torch.inf, dtype=torch.float64)
    for j in range(n):
        best[:, 1 << j, j] = d[:, n, j]
    for subset in range(1, 1 << n):
        for j in range(n):
            if subset >> j & 1 and (rest := subset & ~(1 << j)):
                best[:, subset, j] = (best[:, rest] + d[:, :n, j]).amin(1)
    return (best[:, -1] + d[:, n, :n]).amin(1)
