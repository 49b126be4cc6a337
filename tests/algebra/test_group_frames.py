"""Frames of other groups: finite groups of matrices, draws, Gram-Schmidt, the Lorentz group."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import (
    gram_schmidt_frame,
    group_frame,
    lorentz_frame,
    pca_frame,
    random_frame,
    signed_permutations,
)
from commutant.geometry import FrameAverage

METRIC = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64))


def boost(rapidity=0.6):
    out = torch.eye(4, dtype=torch.float64)
    r = torch.tensor(rapidity, dtype=torch.float64)
    out[0, 0] = out[3, 3] = r.cosh()
    out[0, 3] = out[3, 0] = r.sinh()
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    turn = torch.eye(4, dtype=torch.float64)
    turn[1:, 1:] = q
    return out @ turn


def momenta(systems=4, n=7, massless=True):
    p = torch.randn(systems, n, 3, dtype=torch.float64)
    mass = 0.0 if massless else 0.5
    return torch.cat([(p.square().sum(-1, keepdim=True) + mass).sqrt(), p], -1)


def network(x):
    d = x.shape[-1]
    weight = torch.sin(torch.arange(d * 24, dtype=torch.float64) * 1.7 + 0.3).reshape(d, 24)
    return torch.tanh(x @ weight + weight[0]).mean(-2).cumsum(-1).sin().sum(-1)


def average(frame, x):
    return frame.pool(network(frame.canonicalize(x)))


@pytest.mark.parametrize("massless", [True, False])
def test_lorentz_frames_are_lorentz_transformations_that_move_with_the_momenta(massless):
    x = momenta(massless=massless)
    g = boost()
    first, second = lorentz_frame(x), lorentz_frame(x @ g.mT)
    for frame in (first, second):
        assert torch.allclose(frame.rotation.mT @ METRIC @ frame.rotation, METRIC.expand(len(frame), 4, 4), atol=1e-9)
        assert torch.allclose(
            frame.rotation @ frame.inverse, torch.eye(4, dtype=torch.float64).expand(len(frame), 4, 4)
        )
        assert bool((frame.rotation[:, 0, 0] > 0).all())
        assert len(frame) == 8 * 4
    assert torch.allclose(average(first, x), average(second, x @ g.mT), atol=1e-9)
    order = torch.randperm(7)
    assert torch.allclose(average(first, x), average(lorentz_frame(x[:, order]), x[:, order]), atol=1e-12)


def test_lorentz_vectors_are_restored_and_reflections_can_be_kept():
    x, v = momenta(), torch.randn(4, 7, 4, dtype=torch.float64)
    frame = lorentz_frame(x, proper=True)
    assert bool((torch.linalg.det(frame.rotation) > 0).all())
    assert len(frame) == 4 * 4
    assert torch.allclose(frame.pool(frame.restore(frame.canonicalize(v, "vectors"), "vectors")), v, atol=1e-10)
    mirror = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64))
    other = lorentz_frame(x @ mirror, proper=True)
    assert float((average(frame, x) - average(other, x @ mirror)).abs().min()) > 1e-6


def test_a_network_of_momenta():
    class Mass(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))

        def forward(self, p):
            return self.net(p).sum(1)

    model = FrameAverage(Mass().double(), "Lorentz(4)", outputs="vectors")
    x, g = momenta(), boost()
    assert torch.allclose(model(x) @ g.mT, model(x @ g.mT), atol=1e-8)
    x = x[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(model, (x,), atol=1e-5)


def test_group_averages_are_frame_averages_over_the_whole_group():
    matrices = signed_permutations(3)
    assert len(matrices) == 48
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    frame = group_frame(x, matrices)
    assert len(frame) == 144
    by_hand = torch.stack([network(x @ g) for g in matrices]).mean(0)
    assert torch.allclose(average(frame, x), by_hand, atol=1e-12)
    for g in matrices[[5, 30]]:
        assert torch.allclose(average(group_frame(x @ g.mT, matrices), x @ g.mT), by_hand, atol=1e-12)
    vectors = frame.pool(frame.restore(torch.tanh(frame.canonicalize(x) + 0.3), "vectors"))
    moved = group_frame(x @ matrices[7].mT, matrices)
    again = moved.pool(moved.restore(torch.tanh(moved.canonicalize(x @ matrices[7].mT) + 0.3), "vectors"))
    assert torch.allclose(vectors @ matrices[7].mT, again, atol=1e-12)


def test_an_invariant_function_is_its_own_average():
    x = torch.randn(5, 8, 3, dtype=torch.float64)
    invariant = lambda y: torch.cdist(y, y).sin().sum((1, 2))  # noqa: E731
    for frame in (pca_frame(x), gram_schmidt_frame(x), group_frame(x, signed_permutations(3)), random_frame(x, "E", 3)):
        assert torch.allclose(frame.pool(invariant(frame.canonicalize(x))), invariant(x), atol=1e-9)


def test_averages_are_linear():
    x = torch.randn(5, 8, 3, dtype=torch.float64)
    frame = pca_frame(x)
    f, h = frame.canonicalize(x).sin(), frame.canonicalize(x).exp()
    assert torch.allclose(frame.pool(2 * f - 3 * h), 2 * frame.pool(f) - 3 * frame.pool(h), atol=1e-10)


def test_random_frames_are_uniform():
    x = torch.zeros(1, 1, 3, dtype=torch.float64)
    frame = random_frame(x, "SO", 20_000, generator=torch.Generator().manual_seed(0))
    assert bool((torch.linalg.det(frame.rotation) > 0).all())
    assert float(frame.rotation.mean(0).abs().max()) < 0.02
    second = torch.einsum("mij,mkl->ijkl", frame.rotation, frame.rotation) / len(frame)
    uniform = torch.einsum("ik,jl->ijkl", torch.eye(3), torch.eye(3)).double() / 3
    assert float((second - uniform).abs().max()) < 0.02
    assert not frame.exact


@pytest.mark.parametrize("group", ["O", "SO", "E", "SE"])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_minimal_frames_are_single_and_equivariant(group, d):
    x = torch.randn(3, 6, d, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))
    if group in ("SO", "SE") and torch.linalg.det(q) < 0:
        q[:, 0] *= -1
    shift = torch.ones(d, dtype=torch.float64) if group in ("E", "SE") else torch.zeros(d, dtype=torch.float64)
    first, second = gram_schmidt_frame(x, group), gram_schmidt_frame(x @ q.mT + shift, group)
    assert len(first) == 3
    assert torch.allclose(q @ first.rotation, second.rotation, atol=1e-9)
    assert torch.allclose(first.canonicalize(x), second.canonicalize(x @ q.mT + shift), atol=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lorentz_frame(momenta(n=3)), "do not span 4"),
        (lambda: lorentz_frame(torch.randn(2, 5, 1)), "at least one more"),
        (lambda: gram_schmidt_frame(torch.ones(2, 5, 3)), "span only 0 dimensions"),
        (lambda: gram_schmidt_frame(torch.randn(2, 5, 3), "T"), "group must be"),
        (lambda: random_frame(torch.randn(2, 5, 3), "T", 2), "group must be"),
        (lambda: group_frame(torch.randn(2, 5, 3), signed_permutations(3)[:5]), "do not form a group"),
        (lambda: group_frame(torch.randn(2, 5, 3), signed_permutations(2)), "matrices must be"),
        (lambda: group_frame(torch.randn(2, 5, 3), torch.zeros(0, 3, 3)), "matrices must be"),
        (lambda: group_frame(torch.randn(2, 5, 3), torch.zeros(1, 3, 3)), "invertible"),
        (lambda: group_frame(torch.randn(2, 5, 3), torch.eye(3).expand(2, 3, 3)), "invertible and distinct"),
        (lambda: random_frame(torch.randn(2, 5, 3), "SO", 0), "at least 1"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()
