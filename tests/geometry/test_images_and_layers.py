"""Networks of images averaged over quarter turns and mirrors, and message passing with frames in every layer."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.geometry import ImageAverage, LatentFrameAverage
from commutant.laws import Orthogonal, SquareSymmetry, check_action


@pytest.mark.parametrize("group", ["C2", "C4", "D1", "D2", "D4"])
@pytest.mark.parametrize("vectors", [False, True])
def test_the_square_is_a_group(group, vectors):
    action = SquareSymmetry(group, vectors=vectors)
    assert check_action(action, torch.randn(2, 4, 6, 6, dtype=torch.float64)) < 1e-12
    assert len(action.elements) == len(set(action.elements)) == {"C2": 2, "C4": 4, "D1": 2, "D2": 4, "D4": 8}[group]


def test_vectors_turn_with_the_grid():
    """The gradient of a rotated image is the rotated gradient, with components along rows and columns."""
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    gradient = lambda y: torch.cat(torch.gradient(y, dim=(-2, -1)), 1)  # noqa: E731
    plain, turned = SquareSymmetry(), SquareSymmetry(vectors=True)
    for g in plain.elements:
        assert torch.allclose(gradient(plain.act(g, x)), turned.act(g, gradient(x)), atol=1e-12)


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_a_convolutional_network_of_images(chunk):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)).double()
    model = ImageAverage(net, chunk=chunk)
    x, outs = torch.randn(5, 1, 6, 6, dtype=torch.float64), []
    for train in (True, False):
        model.train(train)
        for y in (x, x.rot90(1, (-2, -1)), x.flip(-1)):
            torch.manual_seed(0)
            outs.append(model(y))
    assert torch.allclose(outs[0], outs[1], atol=1e-12)
    assert torch.allclose(outs[0], outs[2], atol=1e-12)
    assert torch.allclose(outs[3], outs[4], atol=1e-12)
    assert not torch.allclose(outs[0], outs[3])
    assert not torch.allclose(net(x), net(x.flip(-1)), atol=1e-3)


def test_no_images():
    assert ImageAverage(nn.Flatten())(torch.zeros(0, 1, 4, 4)).shape == (0, 16)


def test_oblong_images_and_samples():
    model = ImageAverage(nn.Flatten(), "D2", samples=1)
    x = torch.randn(2, 1, 4, 6)
    assert torch.allclose(model.eval()(x), model.eval()(x.flip(-2)), atol=1e-6)
    assert not torch.allclose(model.train()(x), model.eval()(x))
    with pytest.raises(InputError, match="square images"):
        ImageAverage(nn.Flatten(), "C4")(x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImageAverage(nn.Flatten(), "D3"), "group must be"),
        (lambda: ImageAverage(nn.Flatten(), outputs="flows"), "outputs must be"),
        (lambda: ImageAverage(nn.Flatten(), samples=0), "samples must be"),
        (lambda: ImageAverage(nn.Flatten())(torch.randn(3, 4, 4)), "images must be"),
        (lambda: ImageAverage(lambda x: x.sum())(torch.randn(3, 1, 4, 4)), "a row for each image"),
        (lambda: ImageAverage(nn.Flatten(), outputs="images")(torch.randn(3, 1, 4, 4)), "images must be"),
        (lambda: ImageAverage(nn.Identity(), outputs="vectors")(torch.randn(3, 1, 4, 4)), "even number of channels"),
        (lambda: LatentFrameAverage(nn.Linear(3, 6), [], nn.Linear(6, 3)), "at least one layer"),
        (lambda: layered(width=7)(torch.randn(4, 3), edge_index=EDGES), "multiple of 3"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


class Layer(nn.Module):
    def __init__(self, width, attributes=0):
        super().__init__()
        self.linear = nn.Linear(2 * width + attributes, width)

    def forward(self, h, edge_index, *attributes):
        message = torch.tanh(self.linear(torch.cat([h[edge_index[0]], h[edge_index[1]], *attributes], -1)))
        return h + torch.zeros_like(h).index_add(0, edge_index[0], message)


def layered(width=12, attributes=0, vectors=0, group="E"):
    layers = [Layer(width, attributes) for _ in range(3)]
    return LatentFrameAverage(nn.Linear(3 + 3 * vectors, width), layers, nn.Linear(width, 3), group)


@pytest.mark.parametrize("group", ["E", "SE"])
def test_layers_in_frames_of_their_own(group):
    net = layered(attributes=2, vectors=2, group=group).double()
    pos, vectors, attr = torch.randn(9, 3).double(), torch.randn(9, 2, 3).double(), torch.randn(6, 2).double()
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    edges = torch.tensor([[0, 1, 3, 5, 6, 8], [1, 2, 0, 4, 7, 5]])
    r = Orthogonal(3).sample(pos, torch.Generator().manual_seed(0))
    r = r * torch.linalg.det(r).sign() if group == "SE" else -r * torch.linalg.det(r).sign()
    shift = torch.tensor([1.0, -2.0, 30.0], dtype=torch.float64)
    first = net(pos, vectors, edge_index=edges, edge_attr=attr, batch=batch)
    second = net(pos @ r.mT + shift, vectors @ r.mT, edge_index=edges, edge_attr=attr, batch=batch)
    assert torch.allclose(first @ r.mT + shift, second, atol=1e-9)
    alone = net(pos[4:], vectors[4:], edge_index=edges[:, 3:] - 4, edge_attr=attr[3:])
    assert torch.allclose(first[4:], alone, atol=1e-10)
    order = torch.randperm(9)
    moved = net(pos[order], vectors[order], edge_index=order.argsort()[edges], edge_attr=attr, batch=batch[order])
    assert torch.allclose(first[order], moved, atol=1e-10)
    first.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
